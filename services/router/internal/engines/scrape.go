package engines

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/enginemetrics"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/router/ledger"
)

const (
	scrapeTime = time.Second // for one answer
	scrapeLook = 50 * time.Millisecond
)

// Scraper reads engines' /metrics, each by itself: one that is slow or away keeps no other waiting, and is not asked
// again until it has answered or failed. What it says corrects the ledger until it is too old; an engine that says
// nothing is neither idle nor busy, but unknown.
type Scraper struct {
	Client *Client
	Every  time.Duration // between two looks at one engine, above 0
	View   func() *fleet.View
	Pool   func(id string) *ledger.Pool // of a pool in the view
	Failed func()                       // a page could not be read
	Log    *slog.Logger

	mu    sync.Mutex
	pages map[string]*page // by engines' URL: ranks share one
}

// page is one /metrics.
type page struct {
	due    time.Time
	asking bool
	failed bool // last time
}

// Run scrapes until ctx ends; it returns nil.
func (s *Scraper) Run(ctx context.Context) error {
	look := time.NewTicker(min(scrapeLook, s.Every))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-look.C:
			for url, engines := range s.due(s.View(), now) {
				go s.scrape(ctx, url, engines)
			}
		}
	}
}

// due returns the engines to be asked now, by URL, and forgets pages of engines that have left.
func (s *Scraper) due(v *fleet.View, now time.Time) map[string][]fleet.Engine {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages == nil {
		s.pages = make(map[string]*page)
	}
	ask, there := map[string][]fleet.Engine{}, map[string]bool{}
	for _, e := range v.Engines {
		there[e.URL] = true
		p := s.pages[e.URL]
		if p == nil {
			p = &page{due: now.Add(s.jitter(0, s.Every))}
			s.pages[e.URL] = p
		}
		if !p.asking && !now.Before(p.due) {
			ask[e.URL] = append(ask[e.URL], e)
		}
	}
	for url := range ask {
		s.pages[url].asking, s.pages[url].due = true, now.Add(s.jitter(s.Every*3/4, s.Every/2))
	}
	for url, p := range s.pages {
		if !there[url] && !p.asking {
			delete(s.pages, url)
		}
	}
	return ask
}

// jitter is a time from least on, so that engines and routers are not all asked at once.
func (s *Scraper) jitter(least, more time.Duration) time.Duration { return least + rand.N(more) }

// scrape asks one page and tells the ledgers.
func (s *Scraper) scrape(ctx context.Context, url string, engines []fleet.Engine) {
	ranks, err := s.read(ctx, url)
	now := time.Now()
	for i := range engines {
		for j := range ranks {
			if e := &engines[i]; ranks[j].Rank == e.Rank || len(ranks) == 1 {
				s.Pool(e.Pool).Scraped(e.ID, load(&ranks[j]), now)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pages[url]
	p.asking = false
	if err == nil || ctx.Err() != nil {
		p.failed = false
		return
	}
	s.Failed()
	if !p.failed {
		s.Log.Warn("engine's metrics cannot be read", "engine", engines[0].Name, "err", err)
	}
	p.failed = true
}

func load(s *enginemetrics.Snapshot) ledger.Scrape {
	return ledger.Scrape{
		Usage: min(1, s.KVUsage.Value), Queued: int(min(s.Waiting.Value, 1<<20)), Tokens: s.PromptTokens.Value + s.GenerationTokens.Value,
	}
}

func (s *Scraper) read(ctx context.Context, url string) ([]enginemetrics.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	resp, err := s.Client.get(ctx, url, "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape: status %d", resp.StatusCode)
	}
	return enginemetrics.ParseLoad(resp.Body)
}
