package router

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/warmpath/warmpath/libs/fleet"
)

// oddParams are transfer parameters that no encoder would write like this.
const oddParams = `{"remote_port":5600, "do_remote_prefill" : true,"x":1.60e+1,"\u0061":{"z":1,"z":[ ]},"big":12345678901234567890 }`

const prefillAnswer = `{"id":"cmpl-1","choices":[{"text":"x","finish_reason":"length"}],` +
	`"usage":{"prompt_tokens":1100,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":32}},"kv_transfer_params":` + oddParams + `}`

const decodeAnswer = `{"id":"cmpl-1","choices":[{"text":"x"}], "usage":{"prompt_tokens":1100, "completion_tokens":5,` +
	`"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":1099}},"kv_transfer_params":null}`

// longPrompt is long enough for any policy to have it computed elsewhere, and no other begins like it.
func longPrompt() string {
	return fmt.Sprint(prompts.Add(1)) + strings.Repeat(" tell me more", 400)
}

var prompts atomic.Int64

// asked is one request that an engine got.
type asked struct {
	engine, body string
	header       http.Header
}

// witness notes what engines are asked, in order.
type witness struct {
	mu  sync.Mutex
	all []asked
}

// engine is a handler that is noted under a name.
func (w *witness) engine(name string, next http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		w.mu.Lock()
		w.all = append(w.all, asked{name, string(text), r.Header.Clone()})
		w.mu.Unlock()
		next(rw, r)
	}
}

// took returns what came since the last call.
func (w *witness) took() []asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

func names(all []asked) string {
	var list []string
	for _, a := range all {
		list = append(list, a.engine)
	}
	return strings.Join(list, " ")
}

func role(r fleet.Role) func(*fleet.Engine) { return func(e *fleet.Engine) { e.Role = r } }

// apart is a rig whose policy splits every long prompt.
func (w *witness) apart(g *rig, prefill, decode http.HandlerFunc) {
	g.addEngine("p", w.engine("p", prefill), role(fleet.Prefill))
	g.addEngine("d", w.engine("d", decode), role(fleet.Decode))
}

func longBody(rest string) string {
	return fmt.Sprintf(`{"model":%q,"prompt":%q%s}`, model, longPrompt(), rest)
}

// outcome is what came of the last request, once none is under way.
func (g *rig) outcome() string {
	g.idle()
	if s := g.mail.last().Split; s != nil {
		return s.Outcome
	}
	return ""
}

// tail is what stands behind the prompt.
func tail(body string) string { return body[strings.LastIndex(body, "tell me more")+12:] }

// reads is a transport that says when an answer's body is read first.
type reads struct {
	http.RoundTripper
	once  sync.Once
	begun chan struct{}
}

func (r *reads) RoundTrip(q *http.Request) (*http.Response, error) {
	resp, err := r.RoundTripper.RoundTrip(q)
	if err == nil {
		resp.Body = readsBody{resp.Body, r}
	}
	return resp, err
}

type readsBody struct {
	io.ReadCloser
	r *reads
}

func (b readsBody) Read(p []byte) (int, error) {
	b.r.once.Do(func() { close(b.r.begun) })
	return b.ReadCloser.Read(p)
}
