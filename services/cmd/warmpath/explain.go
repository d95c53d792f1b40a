package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
	"github.com/warmpath/warmpath/services/cmd/warmpath/internal/explain"
)

const (
	explainTime = 30 * time.Second
	connectTime = 5 * time.Second // of these
)

func explainCommand() *ffcli.Command {
	fs := flag.NewFlagSet("warmpath explain", flag.ContinueOnError)
	url := natsFlag(fs)
	pool := fs.String("scale", "", "`pool`, by its id or by a model, whose scaling is explained")
	role := fs.String("role", "", "prefill, decode or both; empty is all that the pool has")
	at := fs.String("at", "", "`time`: 2026-01-02T15:04:05Z, 15:04 (of the last 24 hours), or 10m (ago); empty is now")
	return &ffcli.Command{
		Name:       "explain",
		ShortUsage: "warmpath explain --scale POOL [--role ROLE] [--at TIME] [--nats URL]",
		ShortHelp:  "Say in sentences why a pool had as many engines as it had",
		LongHelp: `Says which decision of the autoscaler was in force at a time, and why: what it saw and how old that was, what each
rule asked for, which one bound, what was not done, what was foreseen with one replica less and one more, and what came.
Decisions are kept in NATS for 24 hours, or as long as there is room.

Why one request went where it went is in the router's log: the line "Got pod scores" with its x-request-id.`,
		FlagSet: fs,
		Options: environment(),
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("cannot explain %q: only scaling is explained, by --scale POOL; of a request see the router's line \"Got pod scores\" with its x-request-id", args[0])
			}
			if *pool == "" {
				return errors.New("give --scale POOL")
			}
			now := time.Now()
			when, err := explain.When(*at, now)
			if err != nil {
				return fmt.Errorf("read --at: %w", err)
			}
			if when.After(now) {
				return fmt.Errorf("read --at: %s lies ahead", when.Format(time.RFC3339))
			}
			ctx, cancel := context.WithTimeout(ctx, explainTime)
			defer cancel()
			return explainScale(ctx, os.Stdout, *url, *pool, decide.Role(*role), when)
		},
	}
}

// explainScale writes why a pool, by its id or by a model, was scaled as it was at a time.
func explainScale(ctx context.Context, out io.Writer, url, name string, role decide.Role, at time.Time) error {
	dial, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := bus.Connect(dial, url, bus.Options{Name: "warmpath explain", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fmt.Errorf("connect to %s: %w", url, err)
	}
	defer conn.Close()
	watcher, err := fleet.Watch(ctx, conn, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	pool, err := poolNamed(watcher.View(), name)
	if err != nil {
		return err
	}
	found, err := explain.At(ctx, conn, pool.ID, at)
	switch {
	case errors.Is(err, explain.ErrTooEarly):
		return fmt.Errorf("%w: the oldest decision of %s is of %s", err, name, found.Earliest.In(at.Location()).Format(time.RFC3339))
	case errors.Is(err, explain.ErrNoDecision):
		return fmt.Errorf("%w: is an autoscaler running?", err)
	case err != nil:
		return err
	}
	return explain.Say(out, &found, pool.Model, role, at)
}

// poolNamed finds a pool by its id or by the name of a model that it serves.
func poolNamed(v *fleet.View, name string) (fleet.Pool, error) {
	if p, ok := v.Pools[name]; ok {
		return p, nil
	}
	if p, _, ok := v.PoolOf(name); ok {
		return p, nil
	}
	var models []string
	for _, p := range v.Pools {
		models = append(models, p.Model)
	}
	slices.Sort(models)
	return fleet.Pool{}, fmt.Errorf("no pool serves %q; there are: %q", name, models)
}
