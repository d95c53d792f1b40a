package fleet

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/warmpath/warmpath/libs/bus"
)

// BucketID names a bucket of a pool.
type BucketID struct {
	Pool string
	N    int // 0 to Buckets-1
}

// BucketOf names the bucket of an engine.
func BucketOf(pool, engine string) BucketID { return BucketID{pool, Bucket(engine)} }

// Subject is where the bucket's events are logged.
func (id BucketID) Subject() string { return bus.EventSubject(id.Pool, id.N) }

func positionKey(id BucketID) string { return fmt.Sprintf("%s.%02d", id.Pool, id.N) }

// PutPosition records the stream sequence from which a bucket must be read to know all its engines. Only the owner of
// the bucket may.
func PutPosition(ctx context.Context, c *bus.Conn, id BucketID, seq uint64) error {
	kv, err := c.KV(ctx, bus.Positions)
	if err != nil {
		return err
	}
	_, err = kv.Put(ctx, positionKey(id), strconv.AppendUint(nil, seq, 10))
	return err
}

// Position returns the sequence from which a bucket must be read; 1 where none is recorded.
func Position(ctx context.Context, c *bus.Conn, id BucketID) (uint64, error) {
	kv, err := c.KV(ctx, bus.Positions)
	if err != nil {
		return 0, err
	}
	e, err := kv.Get(ctx, positionKey(id))
	if errors.Is(err, bus.ErrNotFound) {
		return 1, nil
	}
	if err != nil {
		return 0, err
	}
	seq, err := strconv.ParseUint(strings.TrimSpace(string(e.Value)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read the position of %s: %w", positionKey(id), err)
	}
	return max(seq, 1), nil
}
