// All panels, in the order of the page.

import { accuracyPanel, costPanel, criticalPanel, seedsPanel, walksPanel } from "./curves";
import type { Send } from "./link";
import type { Panel } from "./panel";
import { boundaryPanel, histogramPanel, networkPanel, startPanel, stripPanel } from "./pictures";

export function makePanels(send: Send): Panel[] {
  return [boundaryPanel(), costPanel(), walksPanel(send), histogramPanel(), networkPanel(), stripPanel(), startPanel(), accuracyPanel(), seedsPanel(send), criticalPanel(send)];
}
