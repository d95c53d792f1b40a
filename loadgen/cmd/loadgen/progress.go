package main

import (
	"fmt"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/warmpath/warmpath/loadgen/run"
)

// progress shows on standard error how far a replay is and how many prompt tokens were found in a prefix cache so far:
// a bar on a terminal, a line at each quarter elsewhere. finish ends it.
func progress(label string, all int) (show func(done, all int, last run.Outcome), finish func()) {
	var prompt, cached int
	ratio := func(o run.Outcome) float64 {
		if o.Err == nil && o.Cached >= 0 {
			prompt, cached = prompt+o.Prompt, cached+o.Cached
		}
		return 100 * float64(cached) / float64(max(prompt, 1))
	}
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		quarters := 0
		return func(done, all int, last run.Outcome) {
			hits := ratio(last)
			if now := 4 * done / max(all, 1); now > quarters {
				quarters = now
				fmt.Fprintf(os.Stderr, "%s: %d of %d requests, prefix-hit ratio %.1f %%\n", label, done, all, hits)
			}
		}, func() {}
	}
	bar := progressbar.NewOptions(all, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionShowCount(),
		progressbar.OptionSetWidth(40), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(200*time.Millisecond))
	return func(done, _ int, last run.Outcome) {
		bar.Describe(fmt.Sprintf("%-12s prefix-hit ratio %4.1f %%", label, ratio(last)))
		_ = bar.Set(done)
	}, func() { _ = bar.Finish() }
}
