package observe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/warmpath/warmpath/libs/enginemetrics"
	"github.com/warmpath/warmpath/libs/fleet"
	"github.com/warmpath/warmpath/services/autoscaler/decide"
)

const (
	scrapeEvery = 5 * time.Second
	scrapeTime  = 2 * time.Second // for one answer
	scrapeLook  = 100 * time.Millisecond
	maxScrapes  = 32 // at a time
)

var errIncomplete = errors.New("it says not what runs, waits and fills its cache")

// Scraper reads the /metrics of every engine, each by itself and a bounded number at a time. What an engine said last
// stays, with its time, until the engine leaves the fleet: an engine that says nothing is neither idle nor busy.
type Scraper struct {
	Key    string        // API key of the engines; "" is none
	Every  time.Duration // between two looks at one engine; 0 is 5 s
	Failed func()        // a page could not be read; may be nil
	Log    *slog.Logger

	transport *http.Transport
	slots     chan struct{}

	mu    sync.Mutex
	pages map[string]*page // by engines' URL: ranks share one
}

// page is one /metrics.
type page struct {
	due    time.Time
	asking bool
	failed bool // last time
	engine string
	last   decide.Scrape
}

// Run scrapes the engines of view until ctx ends; it returns nil.
func (s *Scraper) Run(ctx context.Context, view func() *fleet.View) error {
	if s.Every == 0 {
		s.Every = scrapeEvery
	}
	dialer := &net.Dialer{Timeout: scrapeTime}
	s.transport = &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 1, IdleConnTimeout: 2 * time.Minute}
	defer s.transport.CloseIdleConnections()
	s.slots = make(chan struct{}, maxScrapes)
	var asking sync.WaitGroup
	defer asking.Wait()
	look := time.NewTicker(min(scrapeLook, s.Every))
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-look.C:
			for _, url := range s.due(view(), now) {
				asking.Go(func() { s.scrape(ctx, url) })
			}
		}
	}
}

// due returns the URLs to be asked now, each with a slot taken, and forgets pages of engines that have left.
func (s *Scraper) due(v *fleet.View, now time.Time) (ask []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pages == nil {
		s.pages = make(map[string]*page)
	}
	there := make(map[string]bool)
	for _, e := range v.Engines {
		if e.State == fleet.Gone || there[e.URL] {
			continue
		}
		there[e.URL] = true
		if s.pages[e.URL] == nil {
			s.pages[e.URL] = &page{due: now.Add(rand.N(s.Every)), engine: e.Name}
		}
	}
	for url, p := range s.pages {
		if !there[url] && !p.asking {
			delete(s.pages, url)
		}
		if !there[url] || p.asking || now.Before(p.due) {
			continue
		}
		select {
		case s.slots <- struct{}{}:
			p.asking, p.due = true, now.Add(s.Every*3/4+rand.N(s.Every/2)) // so that they are not all asked at once
			ask = append(ask, url)
		default:
			return ask
		}
	}
	return ask
}

// scrape asks one page.
func (s *Scraper) scrape(ctx context.Context, url string) {
	defer func() { <-s.slots }()
	got, err := s.read(ctx, url)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pages[url]
	p.asking = false
	if err == nil {
		err = p.take(got, now)
	}
	failed := err != nil && ctx.Err() == nil
	if failed && s.Failed != nil {
		s.Failed()
	}
	if failed && !p.failed {
		s.Log.Warn("engine's metrics cannot be read", "engine", p.engine, "err", err)
	}
	p.failed = failed
}

// take sums the ranks of a page. A counter that is missing now stays where it was; without the gauges there is nothing.
func (p *page) take(ranks []enginemetrics.Snapshot, now time.Time) error {
	sum := decide.Scrape{At: now, KVTokens: p.last.KVTokens, Preemptions: p.last.Preemptions, Generated: p.last.Generated}
	var preemptions, generated, tokens enginemetrics.Reading[float64]
	for i := range ranks {
		r := &ranks[i]
		if !r.Running.Known || !r.Waiting.Known || !r.KVUsage.Known {
			return errIncomplete
		}
		sum.Running += r.Running.Value
		sum.Waiting += r.Waiting.Value
		sum.KVUsage += min(1, r.KVUsage.Value) / float64(len(ranks))
		add(&preemptions, r.Preemptions, i)
		add(&generated, r.GenerationTokens, i)
		capacity := r.Cache.CacheTokens
		if capacity == 0 {
			capacity = r.Cache.BlockSize * r.Cache.NumGPUBlocks
		}
		add(&tokens, enginemetrics.Reading[float64]{Value: float64(capacity), Known: capacity > 0 && capacity <= mostTok}, i)
	}
	if preemptions.Known {
		sum.Preemptions = preemptions.Value
	}
	if generated.Known {
		sum.Generated = generated.Value
	}
	if tokens.Known {
		sum.KVTokens = int(tokens.Value)
	}
	p.last = sum
	return nil
}

// add adds a rank's reading to the sum of those before it, which is known only where all are.
func add(sum *enginemetrics.Reading[float64], r enginemetrics.Reading[float64], rank int) {
	sum.Value, sum.Known = sum.Value+r.Value, r.Known && (sum.Known || rank == 0)
}

func (s *Scraper) read(ctx context.Context, url string) ([]enginemetrics.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/metrics", nil)
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	if s.Key != "" {
		r.Header.Set("Authorization", "Bearer "+s.Key)
	}
	resp, err := s.transport.RoundTrip(r) // follows no redirects
	if err != nil {
		return nil, fmt.Errorf("scrape: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape: status %d", resp.StatusCode)
	}
	return enginemetrics.ParseLoad(resp.Body)
}

// last is what was last read at a URL; the zero value is never.
func (s *Scraper) last(url string) decide.Scrape {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pages[url]; p != nil {
		return p.last
	}
	return decide.Scrape{}
}
