// Command router serves the OpenAI API in front of the engines.
package main

import (
	"context"
	"flag"
	"time"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/router"
)

func main() {
	var cfg router.Config
	daemon.Main("router", "serves the OpenAI API and sends each request to the engine that answers it soonest",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Listen, "listen", "127.0.0.1:8080", "host:port of the OpenAI API")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
			fs.StringVar(&cfg.Policy, "policy", "warm", "routing policy: warm, least-tokens, round-robin or random")
			fs.DurationVar(&cfg.Scrape, "scrape", time.Second, "between two looks at an engine's metrics; below 0 never")
			fs.StringVar(&cfg.Keys, "keys", "", "`file` or folder of API keys, read again when it changes; beside those in NATS")
			fs.BoolVar(&cfg.NoAuth, "no-auth", false, "serve who has no API key, also on other than loopback addresses")
			fs.DurationVar(&cfg.SLO.TTFT, "slo-ttft", 0, "what the time to the first token should keep; 0 is no objective")
			fs.DurationVar(&cfg.SLO.ITL, "slo-itl", 0, "what the time between tokens should keep; 0 is no objective")
			fs.DurationVar(&cfg.QueueTTL, "queue-ttl", time.Minute, "how long a request waits for room on the engines")
			fs.DurationVar(&cfg.Hold, "hold", 10*time.Second, "how long a request waits while no engine takes requests; for pools that go to zero, longer than an engine takes to start")
			fs.Int64Var(&cfg.BodyBytes, "body-bytes", 1<<30, "most bytes of request bodies under way")
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return router.Run(ctx, cfg)
		})
}
