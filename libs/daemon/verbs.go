package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/peterbourgon/ff/v3/ffcli"
)

// errNoVerb prints the usage, as --help does, but is a failure.
var errNoVerb = fmt.Errorf("no verb given: %w", flag.ErrHelp)

// RunVerb runs the verb of root that args name, until it ends or the first signal comes, and returns the exit status:
// 0 (also after a signal and for --help), 1 with the reason on standard error, 2 where no verb was named.
func RunVerb(root *ffcli.Command, args []string) (status int) {
	ctx, stop := SignalContext()
	defer stop()
	err := root.ParseAndRun(ctx, args)
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return 0
	case errors.Is(err, errNoVerb):
		return 2
	case errors.Is(err, flag.ErrHelp):
		return 0
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", root.Name, err)
	return 1
}

// NoVerb is the Exec of a command that only has verbs: whoever comes here named none, or none that there is.
func NoVerb(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown verb %q; --help lists them", args[0])
	}
	return errNoVerb
}

// WriteJSON writes v to a file as JSON, by rename, so that whoever waits for the file never reads half of it. No path
// writes nothing.
func WriteJSON(path string, v any) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	partial := path + ".partial"
	if err := os.WriteFile(partial, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
