// Command index folds the event log and answers which engine holds which prefix.
package main

import (
	"context"
	"flag"
	"os"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/index"
)

// unset is no shard.
const unset = -1

func main() {
	var cfg index.Config
	daemon.Main("index", "folds the event log and answers which engine holds which leading blocks of a prompt",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "host:port of the gRPC server, as other services reach it")
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
			fs.IntVar(&cfg.Shards, "shards", 1, "number of shards that the 64 buckets are divided among")
			fs.IntVar(&cfg.Shard, "shard", unset, "this replica's shard, 0 to shards-1; default is the number at the end of POD_NAME or of the host's name, modulo shards")
		},
		func(ctx context.Context, p *daemon.Process) error {
			if cfg.Shard == unset {
				host, _ := os.Hostname() // a host without a name has no number either
				var err error
				if cfg.Shard, err = index.ShardOf(cfg.Shards, os.Getenv("POD_NAME"), host); err != nil {
					return err
				}
			}
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return index.Run(ctx, cfg)
		})
}
