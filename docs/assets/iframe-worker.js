/* The search of a site that is opened from a folder: browsers start no worker there, so a hidden frame runs the worker's script. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.ready = new Promise(resolve => {
        const frame = document.createElement("iframe")
        frame.hidden = true
        frame.addEventListener("load", () => {
          const inside = frame.contentWindow
          inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
          const script = inside.document.createElement("script")
          script.src = url
          script.addEventListener("load", () => resolve(inside))
          script.addEventListener("error", () => this.dispatchEvent(new ErrorEvent("error", { message: `cannot load ${url}` })))
          inside.document.head.append(script)
        }, { once: true })
        document.documentElement.append(frame)
      })
    }
    postMessage(data) {
      this.ready.then(inside => inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
