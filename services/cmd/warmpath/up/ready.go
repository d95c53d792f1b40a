package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
)

// enginePatience is how long an engine that does not answer keeps those that do from being served.
const enginePatience = 10 * time.Second

// view is what the engine registry and the router say of the engines.
type view struct {
	conn    *bus.Conn
	watcher *fleet.Watcher
	engines int // that were configured, ranks counted
}

func watchFleet(ctx context.Context, url string, cfg Config) (*view, error) {
	v := &view{}
	for _, e := range cfg.Engines {
		v.engines += max(e.Ranks, 1)
	}
	var err error
	if v.conn, err = bus.Connect(ctx, url, bus.Options{Name: "up", Log: cfg.Process.Log}); err != nil {
		return nil, fmt.Errorf("watch the engines: %w", err)
	}
	if v.watcher, err = fleet.Meet(ctx, v.conn, cfg.Process.Log, nil); err != nil {
		v.conn.Close()
		return nil, fmt.Errorf("watch the engines: %w", err)
	}
	return v, nil
}

// ready returns nil when all engines are registered, or some after enginePatience, and the router lists their models.
func (v *view) ready(ctx context.Context, router string, waited time.Duration) error {
	found := len(v.watcher.View().Engines)
	if found == 0 || found < v.engines && waited < enginePatience {
		return fmt.Errorf("%d of %d engines have answered", found, v.engines)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, router+"/v1/models", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized {
		return nil // it serves; its models are for those with a key
	}
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&list); err != nil {
		return fmt.Errorf("ask the router for its models: %w", err)
	}
	if len(list.Data) == 0 {
		return errors.New("the router knows no model yet")
	}
	return nil
}
