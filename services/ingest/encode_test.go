package ingest

import (
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/warmpath/warmpath/libs/eventlog"
	"github.com/warmpath/warmpath/libs/prefix"
	eventsv1 "github.com/warmpath/warmpath/proto/warmpath/events/v1"
)

// No run takes more of a message than is reckoned with, whatever is set in it.
func TestRunSize(t *testing.T) {
	for n := range 1025 {
		words := make([]uint64, n)
		for _, r := range []prefix.Run{
			{Copy: prefix.Removed, Keys: words, Hashes: words, Shown: words, Split: true},
			{Copy: prefix.Added, Keys: words, Hashes: words, Shown: words, Parents: words, Split: true},
			{Copy: prefix.Added, Keys: words, Hashes: words, HasParent: true, Clear: true},
		} {
			r.GPU, r.Any, r.Tier, r.Group, r.BlockSize = prefix.Added, prefix.Added, prefix.Storage, 1<<15, math.MaxInt32
			d := &eventsv1.Delta{Runs: []*eventsv1.Run{eventlog.Logged(&r)}}
			if size := proto.Size(d); size > runSize(&r) {
				t.Fatalf("a run of %d blocks takes %d bytes, %d reckoned with", n, size, runSize(&r))
			}
		}
	}
}
