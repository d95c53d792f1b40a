// Package tenants knows who asks: it turns API keys into tenants and holds each tenant to its budget.
//
// Keys come from a file or a folder, such as a mounted Secret, and from NATS KV; both are followed while they change.
// Budgets are shared by all routers: each leases a tenth of a minute's budget at a time. Keys themselves are never
// kept, only their hashes; nothing here writes a log line with either. It knows no HTTP and no queue.
package tenants

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warmpath/warmpath/libs/fleet"
)

// Why a request is nobody's.
var (
	ErrNoKey      = errors.New("no API key was given")
	ErrUnknownKey = errors.New("the API key is not known")
	ErrExpiredKey = errors.New("the API key has expired")
)

// Source is where keys come from.
type Source int

// The sources. Where both have a key, the file's record holds.
const (
	Shared Source = iota // NATS KV
	File
)

// hash is the SHA-256 of a key.
type hash [sha256.Size]byte

// Keys are the API keys in force. The zero value has none and is open: whoever asks is nobody's tenant and may. From the
// first key on, or Close, only known keys may, even if none is left. Safe for concurrent use.
type Keys struct {
	closed atomic.Bool
	known  atomic.Pointer[map[hash]*fleet.APIKey]

	mu      sync.Mutex
	sources [File + 1][]fleet.APIKey
}

// Set replaces the keys of a source. They must have passed fleet.APIKey.Check.
func (k *Keys) Set(from Source, keys []fleet.APIKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sources[from] = keys
	known := make(map[hash]*fleet.APIKey)
	for _, source := range k.sources {
		for i := range source {
			var h hash
			if n, err := hex.Decode(h[:], []byte(source[i].Hash)); err == nil && n == len(h) {
				known[h] = &source[i]
			}
		}
	}
	k.known.Store(&known)
	if len(known) > 0 {
		k.closed.Store(true)
	}
}

// Close refuses who has no key, also while there are none.
func (k *Keys) Close() { k.closed.Store(true) }

// Any says whether there is a key.
func (k *Keys) Any() bool {
	known := k.known.Load()
	return known != nil && len(*known) > 0
}

// Find returns the record of the key in an Authorization header, which is not to be changed; nil without an error where
// no key is needed. The look-up is by hash, so its time tells nothing of the keys.
func (k *Keys) Find(authorization string, now time.Time) (*fleet.APIKey, error) {
	closed, known := k.closed.Load(), k.known.Load()
	if known != nil && len(*known) > 0 {
		if scheme, key, ok := strings.Cut(authorization, " "); ok && strings.EqualFold(scheme, "Bearer") {
			found := (*known)[sha256.Sum256([]byte(strings.TrimSpace(key)))]
			switch {
			case found != nil && (found.Expires.IsZero() || now.Before(found.Expires)):
				return found, nil
			case found != nil:
				return nil, ErrExpiredKey
			}
		}
	}
	switch {
	case !closed:
		return nil, nil
	case authorization == "":
		return nil, ErrNoKey
	}
	return nil, ErrUnknownKey
}
