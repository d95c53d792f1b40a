package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	scorerv1 "github.com/warmpath/warmpath/proto/warmpath/scorer/v1"
)

// client asks engines to tokenize, a bounded number of prompts at a time, each engine in its turn.
type client struct {
	http    *http.Client
	engines func(pool string) []string
	report  func(url string, err error)
	turns   chan struct{}
	next    atomic.Uint64

	mu      sync.Mutex
	failing map[string]int       // by URL: calls that failed in a row
	lacking map[string]time.Time // by URL: until when an engine is taken to have no render
}

const (
	// maxFailing bounds the memory of engines that have left the pool while they failed.
	maxFailing = 4096
	// reportAfter failures in a row an engine is said to fail: one late answer under load is no news.
	reportAfter = 5
	// renderAgain is how long an engine without render is asked to tokenize at once: it may be started anew with a later version.
	renderAgain = 10 * time.Minute
)

func newClient(o Options) *client {
	n := o.Concurrency
	if n <= 0 {
		n = 32
	}
	c := &client{
		engines: o.Engines, report: o.Report,
		turns: make(chan struct{}, n), failing: make(map[string]int), lacking: make(map[string]time.Time),
	}
	if c.report == nil {
		c.report = func(string, error) {}
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxIdleConnsPerHost: n,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// found are token ids and where they came from.
type found struct {
	ids    []uint32
	origin Origin
}

// tokenize asks one engine and, where that fails and time is left, one other. Its errors are all *UnknownError. Chat is
// rendered where engines can: that is what they do with the request itself, /tokenize is the same but for a few corners.
func (c *client) tokenize(ctx context.Context, pool string, chat bool, body []byte) (found, error) {
	urls := c.engines(pool)
	if len(urls) == 0 {
		return found{}, unknown(NoEngine)
	}
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		return found{}, unknown(Busy)
	}
	first := c.next.Add(1)
	var err error
	for i := range min(2, len(urls)) {
		at := urls[(first+uint64(i))%uint64(len(urls))]
		var f found
		f, err = c.either(ctx, at, chat, body)
		if errors.Is(err, errRefused) { // another engine would refuse it too, and this one works
			return found{}, &UnknownError{Refused, err}
		}
		c.note(at, err)
		if err == nil {
			return f, nil
		}
		if ctx.Err() != nil {
			return found{}, &UnknownError{Late, err}
		}
	}
	return found{}, &UnknownError{Failed, err}
}

// either renders, where asked to and possible, or else tokenizes. What render refuses, /tokenize may do: render also
// checks what is beside the prompt.
func (c *client) either(ctx context.Context, at string, chat bool, body []byte) (found, error) {
	if chat && c.renders(at) {
		ids, err := c.call(ctx, at+"/v1/chat/completions/render", "token_ids", body)
		switch {
		case errors.Is(err, errAnswer), errors.Is(err, errAbsent):
			c.mu.Lock()
			if len(c.lacking) < maxFailing {
				c.lacking[at] = time.Now().Add(renderAgain)
			}
			c.mu.Unlock()
		case !errors.Is(err, errRefused):
			return found{ids, Render}, err
		}
	}
	ids, err := c.call(ctx, at+"/tokenize", "tokens", body)
	return found{ids, Tokenize}, err
}

func (c *client) renders(at string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, lacks := c.lacking[at]
	if lacks && !time.Now().Before(until) {
		delete(c.lacking, at)
		return true
	}
	return !lacks && len(c.lacking) < maxFailing
}

var (
	errAbsent  = errors.New("not there")
	errAnswer  = errors.New("answer is no tokenization")
	errRefused = errors.New("refused")
)

// call posts the body and reads the member of the answer that holds the ids. Nothing of an answer that is not a tokenization is kept: engines quote prompts in errors.
func (c *client) call(ctx context.Context, to, member string, body []byte) ([]uint32, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("address tokenizer: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err // the URL is reported beside
		}
		return nil, fmt.Errorf("call tokenizer: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
		switch response.StatusCode {
		case http.StatusBadRequest, http.StatusUnprocessableEntity:
			return nil, fmt.Errorf("call tokenizer: %w: status %d", errRefused, response.StatusCode)
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return nil, fmt.Errorf("call tokenizer: %w: status %d", errAbsent, response.StatusCode)
		}
		return nil, fmt.Errorf("call tokenizer: status %d", response.StatusCode)
	}
	// A byte of text is at most about one token, a token at most 12 bytes of answer.
	limit := int64(1<<20 + 12*len(body))
	answer, err := io.ReadAll(io.LimitReader(response.Body, limit))
	if err != nil {
		return nil, fmt.Errorf("read tokenizer's answer: %w", err)
	}
	ids, ok := tokensOf(answer, member)
	if !ok {
		return nil, fmt.Errorf("read tokenizer's answer: %w", errAnswer)
	}
	return ids, nil
}

// note reports an engine once when its calls keep failing, and once when they work again.
func (c *client) note(at string, err error) {
	c.mu.Lock()
	n := c.failing[at]
	switch {
	case err == nil:
		delete(c.failing, at)
	case n > 0 || len(c.failing) < maxFailing:
		c.failing[at] = n + 1
	}
	c.mu.Unlock()
	if err == nil && n >= reportAfter || err != nil && n+1 == reportAfter {
		c.report(at, err)
	}
}

// tokensOf reads {"count": n, "tokens": [id, ...], ...}, where the count, if there is one, must agree; or render's
// {"token_ids": [id, ...], "features": null, ...}, where features would be of images or audio.
func tokensOf(answer []byte, member string) ([]uint32, bool) {
	c := cursor{data: answer}
	var ids []uint32
	count := -1
	ok := c.object(func(key []byte) bool {
		switch string(key) {
		case `"` + member + `"`:
			var ok bool
			ids, ok = c.ids()
			return ok
		case `"features"`:
			return c.peek() == 'n' && c.skip()
		case `"count"`:
			n, ok := c.id()
			count = int(n)
			return ok
		}
		return c.skip()
	})
	if !ok || c.peek() != 0 || c.at != len(answer) || len(ids) == 0 || count >= 0 && count != len(ids) {
		return nil, false
	}
	return ids, true
}

// body is that of POST /tokenize: the client's spans byte for byte, and vLLM's defaults spelled out. (By default
// completions add special tokens; for chat the template has them, and it opens the assistant's turn.)
func body(r *scorerv1.ScoreRequest, p *prompt) []byte {
	name, defaults := "prompt", map[string]bool{"add_special_tokens": true}
	if r.GetKind() == scorerv1.Kind_KIND_CHAT {
		name, defaults = "messages", map[string]bool{"add_special_tokens": false, "add_generation_prompt": true}
	}
	model, _ := json.Marshal(r.GetModel()) // a string: cannot fail
	out := make([]byte, 0, p.size+len(model)+256)
	out = append(append(out, `{"model":`...), model...)
	out = append(append(append(out, `,"`...), name...), `":`...)
	out = append(out, p.text...)
	for _, span := range p.rest {
		delete(defaults, span.GetName())
		out = append(append(append(out, `,"`...), span.GetName()...), `":`...)
		out = append(out, span.GetValue()...)
	}
	for _, name := range []string{"add_special_tokens", "add_generation_prompt"} {
		if on, ok := defaults[name]; ok {
			out = append(append(append(out, `,"`...), name...), `":`...)
			out = strconv.AppendBool(out, on)
		}
	}
	return append(out, '}')
}
