// Command ingest reads the engines' KV events and writes the event log.
package main

import (
	"context"
	"flag"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/ingest"
)

func main() {
	var cfg ingest.Config
	daemon.Main("ingest", "reads the engines' KV events from ZeroMQ and writes the event log to NATS",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
			fs.Func("engine", ingest.EngineUsage, func(value string) error {
				engine, err := ingest.ParseEngine(value)
				cfg.Engines = append(cfg.Engines, engine)
				return err
			})
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return ingest.Run(ctx, cfg)
		})
}
