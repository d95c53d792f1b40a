package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/enginemetrics"
	"github.com/warmpath/warmpath/libs/fleet"
)

// facts are what an engine says of itself over HTTP.
type facts struct {
	models []fleet.Model
	base   string // the pool's model: the first id without parent
	sizes  map[int]enginemetrics.CacheConfig
	// computed are the prompt tokens that a rank has computed, not found in its cache; absent where it does not tell.
	computed map[int]float64
	sleep    map[int]enginemetrics.Sleep
	started  float64 // when its process started, Unix seconds; 0 unknown
}

// size returns the cache configuration of a rank; that of rank 0 where the engine lists only one.
func (f *facts) size(rank int) enginemetrics.CacheConfig {
	if c, ok := f.sizes[rank]; ok && c.BlockSize > 0 {
		return c
	}
	return f.sizes[0]
}

const (
	probeTimeout = 5 * time.Second
	maxModels    = 4 << 20 // bytes of /v1/models
)

var errNoModel = errors.New("/v1/models lists no model without parent")

// probe reads /v1/models and /metrics. An engine whose metrics are not vLLM's has no sizes, which is no error.
func probe(ctx context.Context, client *http.Client, e Engine) (*facts, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	key, err := apiKey(e.KeyFile)
	if err != nil {
		return nil, err
	}
	f := &facts{sizes: map[int]enginemetrics.CacheConfig{}, computed: map[int]float64{}, sleep: map[int]enginemetrics.Sleep{}}
	if err := get(ctx, client, e.URL+"/v1/models", key, f.readModels); err != nil {
		return nil, err
	}
	if err := get(ctx, client, e.URL+"/metrics", key, f.readMetrics); err != nil && e.Events != "" {
		return nil, err
	}
	return f, nil
}

func (f *facts) readModels(r io.Reader) error {
	var list struct{ Data []modelEntry }
	if err := json.NewDecoder(io.LimitReader(r, maxModels)).Decode(&list); err != nil {
		return fmt.Errorf("read /v1/models: %w", err)
	}
	for _, m := range list.Data {
		if m.ID == "" {
			continue
		}
		f.models = append(f.models, fleet.Model{ID: m.ID, Parent: m.Parent, MaxModelLen: m.MaxModelLen})
		if m.Parent == "" {
			f.base = cmp.Or(f.base, m.ID)
		}
	}
	if f.base == "" {
		return errNoModel
	}
	return nil
}

type modelEntry struct {
	ID          string `json:"id"`
	Parent      string `json:"parent"`
	MaxModelLen int    `json:"max_model_len"`
}

func (f *facts) readMetrics(r io.Reader) error {
	ranks, err := enginemetrics.Parse(r)
	if err != nil {
		return err
	}
	for _, s := range ranks {
		f.sizes[s.Rank], f.sleep[s.Rank] = s.Cache, s.Sleep
		if s.PromptTokens.Known && s.PrefixHits.Known {
			f.computed[s.Rank] = s.PromptTokens.Value - s.PrefixHits.Value
		}
		if s.ProcessStart.Known {
			f.started = s.ProcessStart.Value
		}
	}
	return nil
}

// get reads one page of an engine.
func get(ctx context.Context, client *http.Client, url, key string, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	if key != "" {
		request.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the engine: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the engine: %s answers %s", url, response.Status)
	}
	return read(response.Body)
}

// apiKey reads an engine's key anew each time, so that it may be changed.
func apiKey(file string) (string, error) {
	if file == "" {
		return os.Getenv("VLLM_API_KEY"), nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the engine's key: %w", err)
	}
	return strings.TrimSpace(string(data)), nil
}
