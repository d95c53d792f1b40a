package enginesim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// fetchTime bounds one question to another engine on this host.
const fetchTime = 10 * time.Second

// fetch is a prompt that another engine computed for a request of this one.
type fetch struct {
	url  string
	said fetching
	over atomic.Bool // its blocks are read, or will never be
}

// hold asks the prefill engine whether it has what the request was sent with.
func (f *fetch) hold() error { return f.ask(f.said) }

// free tells the prefill engine, once, that its blocks are not needed any longer.
func (f *fetch) free() error {
	if f.over.Swap(true) {
		return nil
	}
	said := f.said
	said.Free, said.Params = true, nil
	return f.ask(said)
}

// ask outlasts the client: what is held must be freed.
func (f *fetch) ask(said fetching) error {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
	defer cancel()
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(text))
	if err != nil {
		return wrongParams(err.Error())
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("fetch KV: %w", err)
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if resp.StatusCode == http.StatusOK {
		return err
	}
	var e struct{ Error struct{ Message string } }
	if err := json.Unmarshal(text, &e); err != nil || e.Error.Message == "" {
		return fmt.Errorf("fetch KV: status %d", resp.StatusCode)
	}
	return badRequest("kv_transfer_params", e.Error.Message)
}

// fetched fetches the KV of a pull and lets its request go on, or fails it.
func (e *Engine) fetched(p Pull, life int) {
	c, ok := p.Request.Tag.(*choice)
	if !ok || c.call.fetch == nil {
		return
	}
	err := c.call.fetch.free()
	e.mu.Lock()
	defer e.mu.Unlock()
	if life != e.life {
		return
	}
	if err != nil {
		e.core.Abort(p.Request.ID)
		fail(p.Request, errors.Join(errKV, err))
	} else {
		e.core.Pulled(p.Request.ID)
	}
	e.nudge()
}

var errKV = errors.New("enginesim: the KV of the prompt could not be fetched")
