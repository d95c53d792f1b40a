// Command scorer turns prompts into block keys and asks the index which engines are warm for them.
package main

import (
	"context"
	"flag"

	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/services/scorer"
)

func main() {
	var cfg scorer.Config
	daemon.Main("scorer", "turns prompts into block keys and asks the index shards which engines hold them",
		func(fs *flag.FlagSet) {
			fs.StringVar(&cfg.NATS, "nats", "nats://127.0.0.1:4222", "URL of the NATS server")
			fs.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "host:port of the gRPC server, as other services reach it")
			fs.Func("tokenizer", scorer.TokenizerUsage, func(value string) error {
				tokenizer, err := scorer.ParseTokenizer(value)
				cfg.Tokenizers = append(cfg.Tokenizers, tokenizer)
				return err
			})
			fs.StringVar(&cfg.Instance, "instance", "", "name of this replica; default is the host's name with a random suffix")
		},
		func(ctx context.Context, p *daemon.Process) error {
			cfg.Log, cfg.Metrics, cfg.Health = p.Log, p.Registry, p.Health
			return scorer.Run(ctx, cfg)
		})
}
