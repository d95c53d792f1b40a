package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/warmpath/warmpath/loadgen/report"
)

// roleArgument is the argument with which a command starts itself for one role of a measurement.
const roleArgument = "role"

// resume makes the folder of path and puts the figures that lie there into file, if they were measured by this very tree
// on this machine; again leaves them out. header finds the header of such a file.
func resume[F any](path string, again bool, file *F, header func(*F) *report.Header) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	var old F
	if again || err != nil || json.Unmarshal(data, &old) != nil {
		return nil
	}
	was, is := header(&old), header(file)
	if was.Commit != is.Commit || was.Commit == "" || strings.HasSuffix(was.Commit, "+") || was.Schema != is.Schema || was.Machine != is.Machine {
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s has figures of this commit, begun %s: its parts are kept (--again measures them anew)\n", path, was.Started)
	*file = old
	return nil
}

// showParts runs a measurement, shows how far it is, and prints the figures that it left, also when it failed.
func showParts(path string, left time.Duration, table func(io.Writer) error, run func(before func(part string)) error) error {
	fmt.Fprintf(os.Stderr, "about %s on two quiet cores\n", left.Round(5*time.Second))
	show, finish := ticking(left)
	err := run(show)
	finish()
	if tableErr := table(os.Stdout); tableErr != nil {
		return errors.Join(err, tableErr)
	}
	fmt.Printf("\nfigures  %s\n", path)
	return err
}

// ticking shows on standard error which part is under way and how much of the time is over: a bar on a terminal, a line
// for each part elsewhere.
func ticking(all time.Duration) (show func(part string), finish func()) {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return func(part string) { fmt.Fprintln(os.Stderr, "measuring", part) }, func() {}
	}
	seconds := int(all.Seconds())
	bar := progressbar.NewOptions(seconds, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetWidth(40),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetPredictTime(false))
	began, tick, done := time.Now(), time.NewTicker(time.Second), make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = bar.Set(min(int(time.Since(began).Seconds()), seconds-1))
			}
		}
	}()
	return func(part string) { bar.Describe(fmt.Sprintf("%-10s", part)) }, func() {
		tick.Stop()
		close(done)
		_ = bar.Finish()
	}
}
