package enginesim

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

// maxEnded bounds what is remembered of prompts that are not kept any longer, to say why.
const maxEnded = 10_000

// keep begins the lease of a prompt that is computed. The lock is held.
func (e *Engine) keep(h *handed, r *Request) {
	h.request, h.params = r.ID, e.params(h, e.core.pinned[r.ID])
	if e.handed == nil || len(e.handed) > maxEnded {
		kept := map[string]*handed{}
		for key, h := range e.handed {
			if h.ended == "" {
				kept[key] = h
			}
		}
		e.handed = kept
	}
	e.handed[h.key] = h
	h.lease = time.AfterFunc(e.leaseTime(), func() { e.expire(h) })
}

func (e *Engine) leaseTime() time.Duration {
	lease := e.o.Lease
	if lease == 0 {
		lease = e.o.Connector.lease()
	}
	return time.Duration(float64(lease) / e.o.TimeScale)
}

// expire ends a lease that nobody used.
func (e *Engine) expire(h *handed) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if h.ended == "" {
		e.metrics.expired.Inc()
		e.expired++
		e.release(h, "its lease is over")
	}
}

// release frees a prompt's blocks. The lock is held.
func (e *Engine) release(h *handed, why string) {
	h.ended = why
	h.lease.Stop()
	e.core.Unpin(h.request)
	e.metrics.observe(e.core.Stats())
	e.nudge()
}

// forgetHanded ends all leases, with a life. The lock is held.
func (e *Engine) forgetHanded() {
	for _, h := range e.handed {
		if h.ended == "" {
			h.ended = "the engine restarted"
			h.lease.Stop()
		}
	}
}

// Expired counts the prompts of this process that were computed for a decode engine which did not fetch them in time.
func (e *Engine) Expired() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.expired
}

// fetching is what one simulated engine asks another: between real ones these are NIXL's handshake and notifications.
type fetching struct {
	Engine string // who computed the prompt
	Key    string // of the prompt there
	Client string // X-Request-Id of the decode leg
	Prompt uint64 // as answer.kv
	Params []byte // kv_transfer_params of the decode leg
	Free   bool   // the blocks have been read, or will never be
}

// fetchPath is where engines ask one another.
const fetchPath = "/enginesim/kv"

// serveFetch answers a decode engine that has been sent here by kv_transfer_params: it must have exactly what was handed
// over, once.
func (e *Engine) serveFetch(w http.ResponseWriter, r *http.Request) {
	var f fetching
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&f); err != nil {
		writeError(w, badRequest("", err.Error()))
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.handed[f.Key]
	why := ""
	switch {
	case f.Engine != e.o.Name:
		why = "they are of another engine"
	case h == nil:
		why = "this prompt was never computed for another engine"
	case h.ended != "":
		why = h.ended
	case f.Free:
		e.release(h, "they were used before")
	case h.held:
		why = "they are used twice"
	case !bytes.Equal(f.Params, h.params):
		why = "they are not those that were handed over, byte for byte"
	case f.Client != h.client:
		why = "the legs have different X-Request-Ids"
	case f.Prompt != h.prompt:
		why = "another prompt was computed"
	default:
		if h.held = true; e.o.Connector == NIXL {
			h.lease.Reset(e.leaseTime())
		}
	}
	if why != "" {
		writeError(w, wrongParams(why))
		return
	}
	writeJSON(w, map[string]bool{"success": true})
}
