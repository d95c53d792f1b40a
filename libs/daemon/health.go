package daemon

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Health collects whether the parts of a process can serve. The zero value is ready to use and, with no part known,
// not ready. All methods may be called from any goroutine; a nil *Health ignores them.
type Health struct {
	mu    sync.Mutex
	parts map[string]string // why a part is not ready; empty when it is
}

// Set records that part is ready (why empty), or why it is not.
func (h *Health) Set(part, why string) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.parts == nil {
		h.parts = make(map[string]string)
	}
	h.parts[part] = why
}

// Ready returns nil when every known part is ready, and else an error that names those that are not.
func (h *Health) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.parts) == 0 {
		return fmt.Errorf("starting")
	}
	var missing []string
	for part, why := range h.parts {
		if why != "" {
			missing = append(missing, part+": "+why)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("%s", strings.Join(missing, "; "))
}
