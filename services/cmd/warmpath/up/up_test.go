package up

import (
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/daemon"
)

// A number of shards that makes no sense is said at once, not taken for another.
func TestShardsAreRefusedBeforeAnythingStarts(t *testing.T) {
	for _, shards := range []int{-3, 65} {
		err := Run(t.Context(), Config{
			Listen: "127.0.0.1:0", DataDir: t.TempDir(), Shards: shards,
			Process: daemon.NewProcess("up", io.Discard, slog.LevelError),
			Ready:   func(Addresses) { t.Error("ready") },
		})
		if err == nil || !strings.Contains(err.Error(), "1 to 64") {
			t.Errorf("%d shards: %v", shards, err)
		}
	}
}
