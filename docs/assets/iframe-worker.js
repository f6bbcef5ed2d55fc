// A page that is opened as a file may start no worker, and the search is one: here a frame runs the worker's script.
// Over http nothing is changed.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.ready = new Promise((resolve, reject) => {
        const load = (source) => {
          const script = frame.contentDocument.createElement("script");
          script.src = source;
          frame.contentDocument.body.append(script);
          return script;
        };
        this.inside.importScripts = (...sources) => sources.forEach(load);
        this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
        const script = load(new URL(address, location.href).href);
        script.onload = resolve;
        script.onerror = reject;
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
