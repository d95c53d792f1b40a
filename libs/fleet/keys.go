package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
)

// APIKey is what an API key stands for: the record in KV keys, by its hash, and an entry of a file of keys. The key
// itself is written nowhere.
type APIKey struct {
	Hash              string    `json:"hash"`                          // KeyHash of the key
	Tenant            string    `json:"tenant"`                        // who pays; 1 to 40 of a-z, 0-9, - and _
	Tier              string    `json:"tier,omitempty"`                // a word for records and metrics; it decides nothing
	Priority          int       `json:"priority,omitempty"`            // band of the queue, -100 to 100; the greater is served first
	RequestsPerMinute int64     `json:"requests_per_minute,omitempty"` // of the tenant; 0 is without bound
	TokensPerMinute   int64     `json:"tokens_per_minute,omitempty"`   // of the tenant, prompt and completion; 0 is without bound
	Trusted           bool      `json:"trusted,omitempty"`             // its routing and priority headers are heard
	Created           time.Time `json:"created,omitzero"`
	Expires           time.Time `json:"expires,omitzero"` // zero is never
}

const keyPrefix = "wp-"

// NewAPIKey makes a key that cannot be guessed: 32 random bytes.
func NewAPIKey() string {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	return keyPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
}

// KeyHash is what is stored of a key: its SHA-256 in hex. Keys are random, so it needs no salt and no cost.
func KeyHash(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// MostPriority bounds priorities, either way.
const MostPriority = 100

// slug is what tenants and tiers may be called: their names are parts of KV keys and labels.
var slug = regexp.MustCompile(`^[a-z0-9_-]{1,40}$`)

// Check says what is wrong with a record; nil when nothing is.
func (k *APIKey) Check() error {
	hash, err := hex.DecodeString(k.Hash)
	switch {
	case err != nil || len(hash) != sha256.Size || strings.ToLower(k.Hash) != k.Hash:
		return errors.New("hash is no SHA-256 in small hex digits")
	case !slug.MatchString(k.Tenant):
		return fmt.Errorf("tenant %q is not 1 to 40 of a-z, 0-9, - and _", k.Tenant)
	case k.Tier != "" && !slug.MatchString(k.Tier):
		return fmt.Errorf("tier %q is not 1 to 40 of a-z, 0-9, - and _", k.Tier)
	case k.Priority < -MostPriority || k.Priority > MostPriority:
		return fmt.Errorf("priority %d is not within -%d to %[2]d", k.Priority, MostPriority)
	case k.RequestsPerMinute < 0 || k.TokensPerMinute < 0:
		return errors.New("a budget is negative")
	}
	return nil
}

// AddKey records a key. Its record must pass Check; one with the same hash is replaced.
func AddKey(ctx context.Context, c *bus.Conn, k *APIKey) error {
	if err := k.Check(); err != nil {
		return fmt.Errorf("add a key: %w", err)
	}
	return put(ctx, c, bus.Keys, k.Hash, k)
}

// ListKeys returns the keys in KV, sorted by tenant and age, and leaves out what is unreadable.
func ListKeys(ctx context.Context, c *bus.Conn) ([]APIKey, error) {
	kv, err := c.KV(ctx, bus.Keys)
	if err != nil {
		return nil, err
	}
	names, err := kv.Keys(ctx)
	if err != nil {
		return nil, err
	}
	byHash := make(map[string]APIKey)
	for _, name := range names {
		e, err := kv.Get(ctx, name)
		if errors.Is(err, bus.ErrNotFound) {
			continue // revoked meanwhile
		}
		if err != nil {
			return nil, err
		}
		if k, err := readKey(e); err == nil {
			byHash[name] = k
		}
	}
	return sortKeys(byHash), nil
}

// RevokeKey removes the only key whose hash begins with prefix and returns it; bus.ErrNotFound if there is none.
func RevokeKey(ctx context.Context, c *bus.Conn, prefix string) (APIKey, error) {
	all, err := ListKeys(ctx, c)
	if err != nil {
		return APIKey{}, err
	}
	match := slices.DeleteFunc(all, func(k APIKey) bool { return !strings.HasPrefix(k.Hash, prefix) })
	switch {
	case len(match) == 0 || prefix == "":
		return APIKey{}, fmt.Errorf("revoke %q: %w", prefix, bus.ErrNotFound)
	case len(match) > 1:
		return APIKey{}, fmt.Errorf("revoke %q: %d keys begin so; give more digits", prefix, len(match))
	}
	return match[0], remove(ctx, c, bus.Keys, match[0].Hash)
}

// WatchKeys calls fn, from one goroutine, with all keys in KV: once when they are known, and after every change, until
// ctx ends. What is unreadable is no key; the log says so. While NATS is away nothing changes.
func WatchKeys(ctx context.Context, c *bus.Conn, log *slog.Logger, fn func([]APIKey)) error {
	kv, err := c.KV(ctx, bus.Keys)
	if err != nil {
		return fmt.Errorf("watch keys: %w", err)
	}
	byHash, listed := make(map[string]APIKey), false
	return kv.Watch(ctx, ">", func(e bus.Entry) {
		listed = listed || e.Key == ""
		delete(byHash, e.Key)
		if e.Key != "" && !e.Deleted {
			if k, err := readKey(e); err == nil {
				byHash[e.Key] = k
			} else {
				log.Warn("cannot use the record of an API key", "hash", e.Key[:min(8, len(e.Key))], "err", err)
			}
		}
		if listed {
			fn(sortKeys(byHash))
		}
	})
}

func readKey(e bus.Entry) (k APIKey, err error) {
	if err = json.Unmarshal(e.Value, &k); err != nil {
		return k, err
	}
	if k.Hash != e.Key {
		return k, errors.New("it has another hash than its key")
	}
	return k, k.Check()
}

func sortKeys(byHash map[string]APIKey) []APIKey {
	return slices.SortedFunc(maps.Values(byHash), func(a, b APIKey) int {
		if n := strings.Compare(a.Tenant, b.Tenant); n != 0 {
			return n
		}
		return a.Created.Compare(b.Created)
	})
}
