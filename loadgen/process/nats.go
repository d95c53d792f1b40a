package process

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/warmpath/warmpath/libs/bus/embedded"
)

// natsRole is a NATS server with JetStream on files.
type natsRole struct{ server *embedded.Server }

// NATS configures StartNATS.
type NATS struct {
	Dir string // of its store
}

// StartNATS starts the role of a NATS server with JetStream on files; it answers with its URL.
func StartNATS(_ context.Context, config []byte) (Role, any, error) {
	var cfg NATS
	if err := json.Unmarshal(config, &cfg); err != nil {
		return nil, nil, err
	}
	server, err := embedded.Start(embedded.Options{Dir: cfg.Dir})
	if err != nil {
		return nil, nil, err
	}
	return natsRole{server}, server.URL(), nil
}

func (r natsRole) Handle(_ context.Context, name string, _ []byte) (any, error) {
	return nil, fmt.Errorf("nats: %s: %w", name, ErrUnknownCall)
}

func (r natsRole) Close() { r.server.Stop() }
