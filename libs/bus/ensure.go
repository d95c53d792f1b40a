package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	eventsAge     = 6 * time.Hour
	requestsAge   = 24 * time.Hour
	memberTTL     = 6 * time.Second
	budgetTTL     = 10 * time.Minute // a minute's leases, long after it
	markerTTL     = time.Second      // without it a watcher never hears of an expiry
	leastBytes    = 1 << 20          // a store that cannot reserve this much is full
	errCodeNoRoom = 10047            // the server's "insufficient storage resources available"
)

// Sizes bound the streams, in bytes. A stream never reserves more than half of what the server's store has left.
type Sizes struct {
	Events   int64 // 0 is 1 GiB
	Requests int64 // 0 is 2 GiB
}

// Ensure creates the streams and key-value buckets that do not exist; those that do are left as they are, but for
// subjects that an earlier release did not have. Any process may call it, at the same time as others.
func (c *Conn) Ensure(ctx context.Context, s Sizes) error {
	if s.Events == 0 {
		s.Events = 1 << 30
	}
	if s.Requests == 0 {
		s.Requests = 2 << 30
	}
	streams := []jetstream.StreamConfig{
		{Name: Events, Subjects: []string{AllEvents}, MaxAge: eventsAge, MaxBytes: s.Events},
		{Name: Requests, Subjects: []string{AllRequests, AllScales}, MaxAge: requestsAge, MaxBytes: s.Requests},
	}
	for _, cfg := range streams {
		cfg.Storage, cfg.Discard = jetstream.FileStorage, jetstream.DiscardOld
		if err := c.ensureStream(ctx, cfg); err != nil {
			return fmt.Errorf("ensure stream %s: %w", cfg.Name, err)
		}
	}
	for _, name := range []string{Members, Engines, Drain, Config, Control, Keys, Budgets, Positions} {
		cfg := jetstream.KeyValueConfig{Bucket: name, Storage: jetstream.FileStorage}
		if name == Members {
			cfg.TTL, cfg.LimitMarkerTTL = memberTTL, markerTTL
		}
		if name == Budgets {
			cfg.TTL = budgetTTL
		}
		if err := c.ensureBucket(ctx, cfg); err != nil {
			return fmt.Errorf("ensure bucket %s: %w", name, err)
		}
	}
	c.mu.Lock()
	c.ensured = &s
	c.mu.Unlock()
	return nil
}

// ensureStream finds room for a stream by trying: the server reserves MaxBytes when a stream is created and does not
// say how much it has. It asks for twice the size, halves while refused, and keeps half of what it got.
func (c *Conn) ensureStream(ctx context.Context, cfg jetstream.StreamConfig) error {
	old, err := c.js.Stream(ctx, cfg.Name)
	if err == nil {
		return c.addSubjects(ctx, old.CachedInfo().Config, cfg.Subjects)
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	wanted := cfg
	for wanted.MaxBytes = 2 * cfg.MaxBytes; ; wanted.MaxBytes /= 2 {
		_, err = c.js.CreateStream(ctx, wanted)
		var api *jetstream.APIError
		if err == nil || !errors.As(err, &api) || api.ErrorCode != errCodeNoRoom || wanted.MaxBytes < 2*leastBytes {
			break
		}
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil // another process was first
	}
	if err != nil {
		return err
	}
	wanted.MaxBytes /= 2
	if _, err := c.js.UpdateStream(ctx, wanted); err != nil {
		return fmt.Errorf("give back what it needs not: %w", err)
	}
	return nil
}

// addSubjects lets a stream that exists keep these subjects too.
func (c *Conn) addSubjects(ctx context.Context, cfg jetstream.StreamConfig, subjects []string) error {
	before := len(cfg.Subjects)
	for _, s := range subjects {
		if !slices.Contains(cfg.Subjects, s) {
			cfg.Subjects = append(cfg.Subjects, s)
		}
	}
	if len(cfg.Subjects) == before {
		return nil
	}
	if _, err := c.js.UpdateStream(ctx, cfg); err != nil {
		return fmt.Errorf("add subjects: %w", err)
	}
	return nil
}

func (c *Conn) ensureBucket(ctx context.Context, cfg jetstream.KeyValueConfig) error {
	_, err := c.js.KeyValue(ctx, cfg.Bucket)
	if !errors.Is(err, jetstream.ErrBucketNotFound) {
		return err
	}
	_, err = c.js.CreateKeyValue(ctx, cfg)
	if errors.Is(err, jetstream.ErrBucketExists) {
		return nil
	}
	return err
}

// StreamState is how far a stream reaches and how much of it there may be.
type StreamState struct {
	First, Last uint64    // sequences; Last is 0 before the first message, First is Last+1 where all have been discarded
	FirstTime   time.Time // when the oldest message was stored; zero where there is none
	Bytes       uint64
	MaxBytes    int64 // 0 or less is without bound
	MaxAge      time.Duration
	Created     time.Time
}

// StreamState asks the server for the state of a stream.
func (c *Conn) StreamState(ctx context.Context, stream string) (StreamState, error) {
	info, err := c.streamInfo(ctx, stream)
	if err != nil {
		return StreamState{}, err
	}
	return StreamState{First: info.State.FirstSeq, Last: info.State.LastSeq, FirstTime: info.State.FirstTime, Bytes: info.State.Bytes,
		MaxBytes: info.Config.MaxBytes, MaxAge: info.Config.MaxAge, Created: info.Created}, nil
}

// Subjects lists the subjects of a stream that match filter, each with the number of its messages that are stored.
func (c *Conn) Subjects(ctx context.Context, stream, filter string) (map[string]uint64, error) {
	ctx, cancel := c.attempt(ctx, callTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", stream, err)
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return nil, fmt.Errorf("list subjects of %s: %w", stream, err)
	}
	return info.State.Subjects, nil
}

func (c *Conn) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	ctx, cancel := c.attempt(ctx, callTimeout)
	defer cancel()
	s, err := c.js.Stream(ctx, stream) // asks the server
	if err != nil {
		return nil, fmt.Errorf("look up stream %s: %w", stream, err)
	}
	return s.CachedInfo(), nil
}
