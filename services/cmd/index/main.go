// Command index folds the event log and answers which engine holds which prefix.
package main

import (
	"context"
	"flag"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/index"
)

func main() {
	var cfg index.Config
	daemon.Main("index", "folds the event log and answers which engine holds which leading blocks of a prompt",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "host:port of the gRPC server, as other services reach it")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
			fs.IntVar(&cfg.Shards, "shards", 1, "number of shards that the 64 buckets are divided among")
			fs.IntVar(&cfg.Shard, "shard", 0, "this replica's shard, 0 to shards-1")
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return index.Run(ctx, cfg)
		})
}
