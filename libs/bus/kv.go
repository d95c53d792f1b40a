package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// KV is one key-value bucket. Its methods make one attempt and fail while NATS is away, except Watch.
type KV struct {
	c    *Conn
	kv   jetstream.KeyValue
	name string
}

// Entry is one key's value.
type Entry struct {
	Key   string
	Value []byte // nil when deleted
	// Deleted: the key has no value any more.
	Deleted bool
	// Expired: it was not deleted by a process that watched us do it, but by its TTL, or while NATS was away.
	Expired  bool
	Revision uint64
	Time     time.Time // when the server stored it
}

// KV returns a bucket that Ensure has made; ErrNotFound if it has not.
func (c *Conn) KV(ctx context.Context, name string) (*KV, error) {
	ctx, cancel := c.attempt(ctx, callTimeout)
	defer cancel()
	kv, err := c.js.KeyValue(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("open bucket %s: %w", name, kvError(err))
	}
	return &KV{c: c, kv: kv, name: name}, nil
}

// Get returns a key's value, or ErrNotFound.
func (k *KV) Get(ctx context.Context, key string) (Entry, error) {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	e, err := k.kv.Get(ctx, key)
	if err != nil {
		return Entry{}, k.fail("get", key, err)
	}
	return Entry{Key: key, Value: e.Value(), Revision: e.Revision(), Time: e.Created()}, nil
}

// Put sets a key and returns its revision.
func (k *KV) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	rev, err := k.kv.Put(ctx, key, value)
	return rev, k.fail("put", key, err)
}

// Create sets a key that has no value; else ErrExists.
func (k *KV) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	rev, err := k.kv.Create(ctx, key, value)
	return rev, k.fail("create", key, err)
}

// Update sets a key whose revision is rev; else ErrExists.
func (k *KV) Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	rev, err := k.kv.Update(ctx, key, value, rev)
	return rev, k.fail("update", key, err)
}

// Delete removes a key's value; that there is none is no error.
func (k *KV) Delete(ctx context.Context, key string) error {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	return k.fail("delete", key, k.kv.Delete(ctx, key))
}

// Keys lists the keys that have a value, in no order.
func (k *KV) Keys(ctx context.Context) ([]string, error) {
	ctx, cancel := k.c.attempt(ctx, callTimeout)
	defer cancel()
	keys, err := k.kv.Keys(ctx)
	if errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	return keys, k.fail("list", "*", err)
}

func (k *KV) fail(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s/%s: %w", verb, k.name, key, kvError(err))
}

// kvError translates what callers may want to tell apart.
func kvError(err error) error {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted), errors.Is(err, jetstream.ErrBucketNotFound):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, jetstream.ErrKeyExists):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}
