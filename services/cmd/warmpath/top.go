package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"charm.land/lipgloss/v2"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/top"
)

// onceWidth is how many cells wide a frame is that is printed.
const onceWidth = 120

type topFlags struct {
	url, pool    string
	asJSON, once bool
}

func topCommand() *ffcli.Command {
	var f topFlags
	fs := flag.NewFlagSet("warmpath top", flag.ContinueOnError)
	url := natsFlag(fs)
	fs.StringVar(&f.pool, "pool", "", "`pool`, by its id or model: the one shown first, and the only one of --json")
	fs.BoolVar(&f.asJSON, "json", false, "print a JSON object each second; its shape is in docs/operations.md")
	fs.BoolVar(&f.once, "once", false, "print once and exit, as soon as everything has been heard")
	return &ffcli.Command{
		Name:       "top",
		ShortUsage: "warmpath top [--nats URL] [--pool POOL] [--json] [--once]",
		ShortHelp:  "Show fleet, demand, replicas and decisions, live",
		LongHelp: `Shows, live in the terminal: the services, per pool its traffic, its replicas by role beside their demand and what was
decided, with the reason, and each engine. It only reads, and goes on with the last picture while NATS is away.

  q quit   tab, arrows: another pool   s sort engines   ? help`,
		FlagSet: fs,
		Options: environment(),
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			f.url = *url
			return f.run(ctx, os.Stdin, os.Stdout)
		},
	}
}

func (f *topFlags) run(ctx context.Context, in, out *os.File) error {
	switch {
	case f.once:
		return f.runOnce(ctx, out)
	case f.asJSON:
		return f.stream(ctx, out)
	}
	for _, file := range []*os.File{in, out} {
		if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return errors.New("this is no terminal: give --json or --once")
		}
	}
	return top.Run(ctx, f.url, f.pool, in, out)
}

func (f *topFlags) runOnce(ctx context.Context, out io.Writer) error {
	p, err := top.Once(ctx, f.url)
	if err != nil {
		return err
	}
	if f.pool != "" && p.Find(f.pool) == nil {
		return fmt.Errorf("there is no pool %q", f.pool)
	}
	f.only(p)
	if f.asJSON {
		return json.NewEncoder(out).Encode(p)
	}
	show := top.Show{}
	if pool := p.Find(f.pool); pool != nil {
		show.Pool = pool.ID
	}
	_, err = lipgloss.Fprintln(out, top.Frame(p, show, onceWidth, 0))
	return err
}

// stream prints pictures until ctx ends or nobody reads them.
func (f *topFlags) stream(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	encoder := json.NewEncoder(out)
	top.Follow(ctx, f.url, func(p *top.Picture) {
		f.only(p)
		if err := encoder.Encode(p); err != nil {
			cancel(err)
		}
	})
	return context.Cause(ctx)
}

// only leaves no other pool than the one asked for in a picture that programs read.
func (f *topFlags) only(p *top.Picture) {
	if f.pool != "" && f.asJSON {
		p.Pools = slices.DeleteFunc(p.Pools, func(o top.Pool) bool { return o.ID != f.pool && o.Model != f.pool })
	}
}
