package enginesim

import (
	"strings"

	"github.com/warmpath/warmpath/libs/kvevent"
	"github.com/warmpath/warmpath/libs/kvwire"
)

// listen binds the event sockets of an engine, or returns nil where it has none.
func listen(o Options, events, replay string) (*kvwire.Publisher, error) {
	if events == "" {
		return nil, nil
	}
	return kvwire.Listen(events, replay, kvwire.PublisherOptions{
		Topic: o.Topic, BufferSteps: o.BufferSteps, Legacy: o.Encoding == kvevent.ArrayForm,
	})
}

// samePort returns the endpoint to bind where asked became bound: asked, with the port that was free.
func samePort(asked, bound string) string {
	host, ok := strings.CutSuffix(asked, ":0")
	if !ok {
		return asked
	}
	return host + bound[strings.LastIndexByte(bound, ':'):]
}

// closeWire ends a publisher, if there is one.
func closeWire(p *kvwire.Publisher) {
	if p != nil {
		p.Close()
	}
}
