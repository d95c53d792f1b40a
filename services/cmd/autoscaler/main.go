// Command autoscaler turns what the routers report into how many prefill and decode engines are needed.
package main

import (
	"context"
	"flag"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/autoscaler"
)

func main() {
	var cfg autoscaler.Config
	daemon.Main("autoscaler", "decides from the routers' reports how many engines each pool and role needs (shadow mode: it only says so)",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return autoscaler.Run(ctx, cfg)
		})
}
