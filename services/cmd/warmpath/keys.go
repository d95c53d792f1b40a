package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"text/tabwriter"
	"time"

	"github.com/peterbourgon/ff/v3"
	"github.com/peterbourgon/ff/v3/ffcli"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/daemon"
	"github.com/warmpath/warmpath/libs/fleet"
)

const keysTime = 10 * time.Second

func keysCommand() *ffcli.Command {
	return &ffcli.Command{
		Name:        "keys",
		ShortUsage:  "warmpath keys <add|list|revoke> [flags]",
		ShortHelp:   "Add, list and revoke API keys",
		LongHelp:    "API keys are kept in NATS, by their hashes. Routers know a change within a second. From the first key on, requests need one.",
		Subcommands: []*ffcli.Command{addKeyCommand(), listKeysCommand(), revokeKeyCommand()},
		Exec:        daemon.NoVerb,
	}
}

// natsFlag is where the keys are.
func natsFlag(fs *flag.FlagSet) *string {
	return fs.String("nats", "nats://127.0.0.1:4222", "URL of the NATS server; warmpath up names its own in --ready-file")
}

func environment() []ff.Option { return []ff.Option{ff.WithEnvVarPrefix(daemon.EnvPrefix)} }

// meet connects, and makes the buckets where nobody has yet.
func meet(ctx context.Context, url string) (*bus.Conn, error) {
	conn, err := bus.Connect(ctx, url, bus.Options{Name: "warmpath keys", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", url, err)
	}
	if err := conn.Ensure(ctx, bus.Sizes{}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// newKey is what the flags of add say.
type newKey struct {
	fleet.APIKey
	lasts time.Duration
	entry bool
}

func addKeyCommand() *ffcli.Command {
	var k newKey
	fs := flag.NewFlagSet("warmpath keys add", flag.ContinueOnError)
	url := natsFlag(fs)
	fs.StringVar(&k.Tenant, "tenant", "", "who pays: 1 to 40 of a-z, 0-9, - and _ (required)")
	fs.StringVar(&k.Tier, "tier", "", "a word for records and metrics")
	fs.IntVar(&k.Priority, "priority", 0, "band of the queue, -100 to 100: the greater is served first, always")
	fs.Int64Var(&k.RequestsPerMinute, "requests", 0, "requests of the tenant in a minute; 0 is without bound")
	fs.Int64Var(&k.TokensPerMinute, "tokens", 0, "tokens of the tenant in a minute, prompt and completion; 0 is without bound")
	fs.BoolVar(&k.Trusted, "trusted", false, "hear its routing and priority headers: for a proxy of yours, not for tenants")
	fs.DurationVar(&k.lasts, "expires", 0, "time until it expires, such as 720h; 0 is never")
	fs.BoolVar(&k.entry, "print", false, "print an entry for a file of keys instead of writing to NATS")
	return &ffcli.Command{
		Name:       "add",
		ShortUsage: "warmpath keys add --tenant NAME [flags]",
		ShortHelp:  "Make a key and show it, once",
		FlagSet:    fs,
		Options:    environment(),
		Exec: func(ctx context.Context, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			ctx, cancel := context.WithTimeout(ctx, keysTime)
			defer cancel()
			return k.add(ctx, *url, time.Now(), os.Stdout)
		},
	}
}

// add makes a key and writes it to out: the only time that it is seen.
func (k *newKey) add(ctx context.Context, url string, now time.Time, out io.Writer) error {
	key := fleet.NewAPIKey()
	record := k.APIKey
	record.Hash, record.Created = fleet.KeyHash(key), now.UTC().Truncate(time.Second)
	if k.lasts != 0 {
		record.Expires = record.Created.Add(k.lasts)
	}
	if err := record.Check(); err != nil {
		return err
	}
	if k.lasts < 0 {
		return errors.New("--expires is negative")
	}
	if k.entry {
		entry, err := json.MarshalIndent(struct {
			Keys []fleet.APIKey `json:"keys"`
		}{[]fleet.APIKey{record}}, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "The key, shown only now: %s\n", key)
		_, err = fmt.Fprintf(out, "%s\n", entry)
		return err
	}
	conn, err := meet(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := fleet.AddKey(ctx, conn, &record); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Key %s of tenant %s, shown only now:\n", record.Hash[:12], record.Tenant)
	_, err = fmt.Fprintln(out, key)
	return err
}

func listKeysCommand() *ffcli.Command {
	fs := flag.NewFlagSet("warmpath keys list", flag.ContinueOnError)
	url := natsFlag(fs)
	asJSON := fs.Bool("json", false, "as JSON")
	return &ffcli.Command{
		Name:       "list",
		ShortUsage: "warmpath keys list [flags]",
		ShortHelp:  "List the keys in NATS, by their hashes",
		FlagSet:    fs,
		Options:    environment(),
		Exec: func(ctx context.Context, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, keysTime)
			defer cancel()
			conn, err := meet(ctx, *url)
			if err != nil {
				return err
			}
			defer conn.Close()
			keys, err := fleet.ListKeys(ctx, conn)
			if err != nil {
				return err
			}
			if *asJSON {
				return json.NewEncoder(os.Stdout).Encode(keys)
			}
			return printKeys(os.Stdout, keys, time.Now())
		},
	}
}

func printKeys(out io.Writer, keys []fleet.APIKey, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "HASH\tTENANT\tTIER\tPRIORITY\tREQUESTS/MIN\tTOKENS/MIN\tTRUSTED\tEXPIRES")
	bound := func(n int64) string {
		if n == 0 {
			return "-"
		}
		return fmt.Sprint(n)
	}
	for _, k := range keys {
		expires := "-"
		switch {
		case k.Expires.IsZero():
		case now.After(k.Expires):
			expires = "expired"
		default:
			expires = k.Expires.Format(time.RFC3339)
		}
		tier := k.Tier
		if tier == "" {
			tier = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%v\t%s\n", k.Hash[:12], k.Tenant, tier, k.Priority,
			bound(k.RequestsPerMinute), bound(k.TokensPerMinute), k.Trusted, expires)
	}
	return w.Flush()
}

func revokeKeyCommand() *ffcli.Command {
	fs := flag.NewFlagSet("warmpath keys revoke", flag.ContinueOnError)
	url := natsFlag(fs)
	return &ffcli.Command{
		Name:       "revoke",
		ShortUsage: "warmpath keys revoke [flags] HASH",
		ShortHelp:  "Remove the key whose hash begins with HASH",
		FlagSet:    fs,
		Options:    environment(),
		Exec: func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return errors.New("give the first digits of one hash; warmpath keys list shows them")
			}
			ctx, cancel := context.WithTimeout(ctx, keysTime)
			defer cancel()
			conn, err := meet(ctx, *url)
			if err != nil {
				return err
			}
			defer conn.Close()
			k, err := fleet.RevokeKey(ctx, conn, args[0])
			if err != nil {
				return err
			}
			fmt.Printf("revoked %s of tenant %s\n", k.Hash[:12], k.Tenant)
			return nil
		},
	}
}
