package daemon

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/peterbourgon/ff/v3/ffcli"
)

func TestRunVerbTellsFailuresApart(t *testing.T) {
	verb := func(name string, err error) *ffcli.Command {
		return &ffcli.Command{Name: name, FlagSet: flag.NewFlagSet(name, flag.ContinueOnError),
			Exec: func(context.Context, []string) error { return err }}
	}
	root := func() *ffcli.Command {
		return &ffcli.Command{Name: "test", Exec: NoVerb, UsageFunc: func(*ffcli.Command) string { return "" },
			Subcommands: []*ffcli.Command{verb("good", nil), verb("bad", errors.New("bad")), verb("stopped", context.Canceled)}}
	}
	for args, want := range map[string]int{"good": 0, "bad": 1, "stopped": 0, "unheard-of": 1} {
		if got := RunVerb(root(), []string{args}); got != want {
			t.Errorf("%s ended with %d, want %d", args, got, want)
		}
	}
	if got := RunVerb(root(), nil); got != 2 {
		t.Errorf("no verb ended with %d, want 2", got)
	}
}

func TestWriteJSONLeavesNothingBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ready.json")
	for range 2 {
		if err := WriteJSON(path, map[string]int{"a": 1}); err != nil {
			t.Fatal(err)
		}
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "{\n  \"a\": 1\n}\n" {
		t.Fatalf("read %q, %v", data, err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Fatalf("%v beside it, %v", files, err)
	}
	if err := WriteJSON("", nil); err != nil {
		t.Fatal(err)
	}
}
