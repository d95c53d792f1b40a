// Package engines asks engines for what they say of themselves, beside the requests that they serve: their metrics, and
// whether they live. It corrects the ledgers by the answers.
package engines

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/warmpath/warmpath/services/router/internal/wire"
)

const (
	dialTime    = 2 * time.Second
	idleConns   = 512 // for each engine
	socketRead  = 16 << 10
	socketWrite = 64 << 10
)

// NewTransport keeps connections to engines. No time limit but for dialling: a prompt may wait long for its turn.
func NewTransport() *wire.Transport {
	dialer := &net.Dialer{Timeout: dialTime, KeepAlive: 15 * time.Second}
	return &wire.Transport{
		Dial: dialer.DialContext,
		Other: &http.Transport{ // of engines behind TLS
			DialContext:         dialer.DialContext,
			MaxIdleConnsPerHost: idleConns,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // the usage chunk must be readable
			ReadBufferSize:      socketRead,
			WriteBufferSize:     socketWrite,
		},
	}
}

// Client speaks to engines.
type Client struct {
	http.RoundTripper
	Key string // the engines' API key; empty is none
}

// Send is RoundTrip; meanwhile is called once before it returns, where that can be while the engine is at work.
func (c *Client) Send(r *http.Request, meanwhile func()) (*http.Response, error) {
	if t, ok := c.RoundTripper.(*wire.Transport); ok {
		return t.Send(r, meanwhile)
	}
	meanwhile()
	return c.RoundTrip(r)
}

// Authorize sets the engines' key on a request to one of them.
func (c *Client) Authorize(h http.Header) {
	if c.Key != "" {
		h.Set("Authorization", "Bearer "+c.Key)
	}
}

// get asks an engine for a page of its own.
func (c *Client) get(ctx context.Context, engine, path string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(engine, "/")+path, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	c.Authorize(r.Header)
	resp, err := c.RoundTrip(r)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", path, err)
	}
	return resp, nil
}
