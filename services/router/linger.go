package router

import (
	"io"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/openai"
)

// What is read of a refused body, only to be dropped.
const (
	lingerBytes = 64 << 20
	lingerTime  = 5 * time.Second
)

// refuseUnread answers at once a request whose body has not been read, and then drops what the client still sends. Many
// clients read no answer before they have sent everything; a connection that is closed meanwhile (RFC 9112, 9.6) is to
// them a fault of the network, and they send it all again.
func (rt *router) refuseUnread(w http.ResponseWriter, r *http.Request, e *openai.Error) {
	control := http.NewResponseController(w)
	w.Header().Set("Connection", "close")
	waits := late(e) || r.Header.Get("Expect") != "" // such a client sends no more
	if waits || control.EnableFullDuplex() != nil {
		rt.refuse(w, e)
		return
	}
	rt.refuse(w, e)
	if control.Flush() != nil || control.SetReadDeadline(time.Now().Add(lingerTime)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, r.Body, lingerBytes)
}
