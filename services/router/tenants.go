package router

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/internal/tenants"
)

const keysEvery = time.Second // a file of keys is looked at

// ErrOpen says that whoever reaches the router could use it: there are no API keys, and nobody has said that none are
// needed.
var ErrOpen = errors.New("other machines can reach the address and no API keys are set")

// followTenants reads the API keys that there are and follows them, and the budgets, as long as life lasts.
func (rt *router) followTenants(ctx, life context.Context, conn *bus.Conn, listen net.Addr) error {
	if rt.cfg.Keys != "" {
		tick := time.NewTicker(keysEvery)
		context.AfterFunc(life, tick.Stop)
		if err := rt.keys.Follow(life, rt.cfg.Keys, tick.C, rt.log, rt.metrics.unreadKeys.Inc); err != nil {
			return err
		}
		rt.keys.Close() // also of an empty file: a file was given
	}
	listed := make(chan struct{})
	first := true
	failed := make(chan error, 1)
	go func() {
		failed <- fleet.WatchKeys(life, conn, rt.log, func(keys []fleet.APIKey) {
			rt.keys.Set(tenants.Shared, keys)
			if first {
				first = false
				close(listed)
			}
		})
	}()
	select {
	case <-listed:
	case err := <-failed:
		return errors.Join(err, ctx.Err())
	case <-ctx.Done():
		return ctx.Err()
	}
	budgets, err := fleet.OpenBudgets(ctx, conn)
	if err != nil {
		return err
	}
	rt.budgets.Store = budgets
	return rt.refuseOpen(listen)
}

// refuseOpen keeps an API without keys off the network unless the operator asks for it.
func (rt *router) refuseOpen(listen net.Addr) error {
	switch tcp, ok := listen.(*net.TCPAddr); {
	case rt.cfg.NoAuth:
		return nil
	case rt.keys.Any():
	case ok && tcp.IP.IsLoopback():
		return nil
	case rt.cfg.Keys == "":
		return fmt.Errorf("listen on %s: %w; add a key (warmpath keys add), or --no-auth if that is meant", listen, ErrOpen)
	}
	rt.keys.Close()
	return nil
}
