// Drawings on buttons, in a square of 24.

export const ICONS = {
  play: '<path d="M7 4l14 8-14 8z" fill="currentColor"/>',
  pause: '<path d="M6 4h4v16H6zM14 4h4v16h-4z" fill="currentColor"/>',
  step: '<path d="M5 4l10 8-10 8zM17 4h3v16h-3z" fill="currentColor"/>',
  reset: '<path d="M5 12a7 7 0 1 0 2.5-5.4M8 2v5h5" fill="none" stroke="currentColor" stroke-width="2"/>',
  dice: '<rect x="4" y="4" width="16" height="16" rx="3" fill="none" stroke="currentColor" stroke-width="2"/><circle cx="9" cy="9" r="1.6" fill="currentColor"/><circle cx="15" cy="15" r="1.6" fill="currentColor"/><circle cx="15" cy="9" r="1.6" fill="currentColor"/><circle cx="9" cy="15" r="1.6" fill="currentColor"/>',
  theme: '<path d="M12 3a9 9 0 1 0 0 18z" fill="currentColor"/><circle cx="12" cy="12" r="9" fill="none" stroke="currentColor" stroke-width="2"/>',
};
