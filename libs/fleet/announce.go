package fleet

import (
	"context"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
)

// Period is how often a member refreshes its record.
const Period = 2 * time.Second

// Announce puts what member returns at once and then each Period, until ctx ends; then it deletes the record and
// returns nil. What fails while NATS is away is made good by the next refresh.
func Announce(ctx context.Context, c *bus.Conn, member func() Member) error {
	m := member()
	if m.Service == "" || m.Instance == "" {
		return fmt.Errorf("announce %q of %q: a member needs a service and an instance", m.Instance, m.Service)
	}
	key := m.Service + "." + m.Instance
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for {
		_ = put(ctx, c, bus.Members, key, m)
		select {
		case <-ctx.Done():
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), Period)
			defer cancel()
			_ = remove(leave, c, bus.Members, key)
			return nil
		case <-tick.C:
			m = member()
		}
	}
}
