package fleet

import (
	"testing"

	"github.com/warmpath/warmpath/libs/bus"
)

func TestPositionIsTheOneRecorded(t *testing.T) {
	t.Parallel()
	c := connect(t)
	id := BucketID{Pool: "p-01234567", N: 7}
	if seq, err := Position(t.Context(), c, id); err != nil || seq != 1 {
		t.Fatalf("nothing recorded: %d, %v", seq, err)
	}
	if err := PutPosition(t.Context(), c, id, 1<<40); err != nil {
		t.Fatal(err)
	}
	if seq, err := Position(t.Context(), c, id); err != nil || seq != 1<<40 {
		t.Fatalf("recorded %d: %d, %v", 1<<40, seq, err)
	}
	kv, err := c.KV(t.Context(), bus.Positions)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(t.Context(), "p-01234567.07", []byte("here")); err != nil {
		t.Fatal(err)
	}
	if seq, err := Position(t.Context(), c, id); err == nil {
		t.Fatalf("an unreadable position is %d", seq)
	}
}
