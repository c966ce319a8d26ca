"""The page inside a notebook, through anywidget: messages go over the kernel's own channel, no server and no token."""

from __future__ import annotations

from typing import Any

from firstlight.errors import FirstlightError
from firstlight.playground.protocol import error_message, parse_command
from firstlight.playground.recording import page
from firstlight.playground.session import OwnModel, Session

# The page runs in a frame of its own, so that its styles and the notebook's leave each other alone.
_MODULE = """
export default {
  render({ model, el }) {
    const frame = document.createElement("iframe");
    frame.name = "firstlight-widget";
    frame.title = "firstlight playground";
    frame.style = `width:100%;border:0;height:${model.get("height")}px`;
    const up = (event) => {
      if (event.source === frame.contentWindow && event.data && typeof event.data.firstlight === "string")
        model.send({ text: event.data.firstlight });
    };
    const down = (message, buffers) => {
      if (buffers && buffers.length) {
        const view = buffers[0];
        const copy = view.buffer ? view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength) : view;
        frame.contentWindow.postMessage({ frame: copy }, "*");
      } else frame.contentWindow.postMessage(message, "*");
    };
    window.addEventListener("message", up);
    model.on("msg:custom", down);
    frame.onload = () => model.send({ ready: true });
    frame.srcdoc = model.get("page");
    el.append(frame);
    return () => {
      window.removeEventListener("message", up);
      model.off("msg:custom", down);
      model.send({ gone: true });
    };
  },
};
"""


def build(own: OwnModel | None, height: int) -> Any:
    """The widget; one training thread for each view of it that is open.

    Raises:
        FirstlightError: anywidget is not installed.
    """
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise FirstlightError(
            "playground.notebook",
            got=f"no module {error.name!r}",
            expected="the extra `notebook`",
            action="Install it: pip install 'firstlight[notebook]'.",
        ) from error

    class Widget(anywidget.AnyWidget):
        """The playground in a cell."""

        _esm = _MODULE
        page = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int().tag(sync=True)

        def __init__(self) -> None:
            super().__init__(page=page(), height=height)
            self._session: Session | None = None
            self.on_msg(self._receive)

        def _receive(self, _: Any, content: Any, __: Any) -> None:
            if "ready" in content or "gone" in content:
                self._end()
            if "ready" in content:
                self._session = Session(own)
                self._session.start(self._deliver)
            elif self._session is not None and isinstance(content.get("text"), str):
                try:
                    self._session.submit(parse_command(content["text"]))
                except FirstlightError as error:
                    self.send({"text": error_message(error)})

        def _deliver(self) -> None:
            session = self._session
            for message in () if session is None else session.mailbox.take():
                if isinstance(message, bytes):
                    self.send({"frame": True}, [message])
                else:
                    self.send({"text": message})

        def _end(self) -> None:
            if self._session is not None:
                self._session.close()
                self._session = None

        def close(self) -> None:
            """End the training thread and take the widget away."""
            self._end()
            super().close()

    return Widget()
