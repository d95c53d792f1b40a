package fleet

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/warmpath/warmpath/libs/blockkey"
	"github.com/warmpath/warmpath/libs/bus"
)

const (
	seedKey    = "hash-seed"
	poolPrefix = "pool."
)

func engineKey(pool, engine string) string { return pool + "." + engine }

// Seed returns the installation's hash seed, made by whoever asks first. The seed is a secret: never log it.
func Seed(ctx context.Context, c *bus.Conn) (blockkey.Seed, error) {
	var fresh blockkey.Seed
	if _, err := rand.Read(fresh[:]); err != nil {
		return blockkey.Seed{}, fmt.Errorf("make a hash seed: %w", err)
	}
	value, err := createOrGet(ctx, c, seedKey, fresh[:])
	if err != nil {
		return blockkey.Seed{}, fmt.Errorf("get the hash seed: %w", err)
	}
	if len(value) != len(fresh) {
		return blockkey.Seed{}, fmt.Errorf("get the hash seed: it has %d bytes, not %d", len(value), len(fresh))
	}
	return blockkey.Seed(value), nil
}

// ErrOtherSeed says that the installation has another hash seed than the one in use.
var ErrOtherSeed = errors.New("the hash seed is another")

// KeepSeed puts the seed in use back where NATS has lost it. It fails with ErrOtherSeed where another is in force.
func KeepSeed(ctx context.Context, c *bus.Conn, seed blockkey.Seed) error {
	value, err := createOrGet(ctx, c, seedKey, seed[:])
	if err != nil {
		return fmt.Errorf("keep the hash seed: %w", err)
	}
	if subtle.ConstantTimeCompare(value, seed[:]) == 0 {
		return fmt.Errorf("keep the hash seed: %w", ErrOtherSeed)
	}
	return nil
}

// EnsurePool records a pool if it is new and returns the record in force: the first one written.
func EnsurePool(ctx context.Context, c *bus.Conn, p Pool) (Pool, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return Pool{}, fmt.Errorf("encode pool %s: %w", p.ID, err)
	}
	value, err := createOrGet(ctx, c, poolPrefix+p.ID, data)
	if err != nil {
		return Pool{}, fmt.Errorf("record pool %s: %w", p.ID, err)
	}
	var inForce Pool
	if err := json.Unmarshal(value, &inForce); err != nil {
		return Pool{}, fmt.Errorf("read pool %s: %w", p.ID, err)
	}
	return inForce, nil
}

// createOrGet sets a key of bucket config if it has no value, and returns the value that it has then.
func createOrGet(ctx context.Context, c *bus.Conn, key string, value []byte) ([]byte, error) {
	kv, err := c.KV(ctx, bus.Config)
	if err != nil {
		return nil, err
	}
	_, err = kv.Create(ctx, key, value)
	if err == nil {
		return value, nil
	}
	if !errors.Is(err, bus.ErrExists) {
		return nil, err
	}
	e, err := kv.Get(ctx, key)
	return e.Value, err
}

// PutEngine records an engine. Only the owner of its bucket may.
func PutEngine(ctx context.Context, c *bus.Conn, e Engine) error {
	return put(ctx, c, bus.Engines, engineKey(e.Pool, e.ID), e)
}

// DeleteEngine removes the record of an engine.
func DeleteEngine(ctx context.Context, c *bus.Conn, pool, engine string) error {
	return remove(ctx, c, bus.Engines, engineKey(pool, engine))
}

// DrainRecord says why an engine gets no new requests; KV drain, key `<pool>.<engine>`.
type DrainRecord struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Drain stops new requests to an engine.
func Drain(ctx context.Context, c *bus.Conn, pool, engine string, r DrainRecord) error {
	return put(ctx, c, bus.Drain, engineKey(pool, engine), r)
}

// Undrain allows them again.
func Undrain(ctx context.Context, c *bus.Conn, pool, engine string) error {
	return remove(ctx, c, bus.Drain, engineKey(pool, engine))
}

func put(ctx context.Context, c *bus.Conn, bucket, key string, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", bucket, key, err)
	}
	kv, err := c.KV(ctx, bucket)
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, key, data)
	return err
}

func remove(ctx context.Context, c *bus.Conn, bucket, key string) error {
	kv, err := c.KV(ctx, bucket)
	if err != nil {
		return err
	}
	return kv.Delete(ctx, key)
}
