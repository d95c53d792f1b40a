package main

import (
	"fmt"
	"os"
	"sync"
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

// runProgress shows on standard error how far several runs at once are: a bar on a terminal, a line at each twentieth
// elsewhere. Its methods may be called from several goroutines.
type runProgress struct {
	all   int
	began time.Time

	mu     sync.Mutex
	bar    *progressbar.ProgressBar // nil where there is no terminal
	shares map[string]float64       // of runs under way
	done   int
	told   int // twentieths
}

func newRunProgress(runs int) *runProgress {
	p := &runProgress{all: runs, began: time.Now(), shares: map[string]float64{}}
	if term.IsTerminal(int(os.Stderr.Fd())) && runs > 0 {
		p.bar = progressbar.NewOptions(1000*runs, progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetPredictTime(true),
			progressbar.OptionSetWidth(40), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(200*time.Millisecond))
	}
	return p
}

func (p *runProgress) progress(run string, done, all int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shares[run] = float64(done) / float64(max(1, all))
	if p.bar != nil {
		sum := 0.
		for _, s := range p.shares {
			sum += s
		}
		p.bar.Describe(run)
		_ = p.bar.Set(int(1000 * sum))
	}
}

// ended says that a run has ended.
func (p *runProgress) ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if now := 20 * p.done / p.all; p.bar == nil && now > p.told && p.done < p.all {
		p.told = now
		left := time.Since(p.began) / time.Duration(p.done) * time.Duration(p.all-p.done)
		fmt.Fprintf(os.Stderr, "%d of %d runs, about %v left\n", p.done, p.all, left.Round(time.Second))
	}
}

func (p *runProgress) finish() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
