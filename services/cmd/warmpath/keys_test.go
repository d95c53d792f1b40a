package main

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
)

func TestKeysAreShownOnceAndStoredHashed(t *testing.T) {
	dir := t.TempDir()
	server, err := embedded.Start(embedded.Options{Dir: dir, MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	now := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	var out strings.Builder
	k := newKey{APIKey: fleet.APIKey{Tenant: "a", Tier: "gold", Priority: 2, RequestsPerMinute: 60, TokensPerMinute: 90_000, Trusted: true}, lasts: time.Hour}
	if err := k.add(t.Context(), server.URL(), now, &out); err != nil {
		t.Fatal(err)
	}
	key := strings.TrimSpace(out.String())
	if !strings.HasPrefix(key, "wp-") || len(key) != 46 {
		t.Errorf("key %q", key)
	}
	conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys, err := fleet.ListKeys(t.Context(), conn)
	want := k.APIKey
	want.Hash, want.Created, want.Expires = fleet.KeyHash(key), now.Truncate(time.Second), now.Truncate(time.Second).Add(time.Hour)
	if err != nil || len(keys) != 1 || keys[0] != want {
		t.Fatalf("%+v, %v", keys, err)
	}
	if found := grep(t, dir, key[3:]); found != "" {
		t.Errorf("the key is in %s", found)
	}
	if grep(t, dir, want.Hash) == "" {
		t.Error("the hash is in no file: the search finds nothing")
	}
	var table strings.Builder
	if err := printKeys(&table, keys, now.Add(2*time.Hour)); err != nil || !strings.Contains(table.String(), "expired") ||
		!strings.Contains(table.String(), want.Hash[:12]) || strings.Contains(table.String(), want.Hash) {
		t.Errorf("%s, %v", table.String(), err)
	}
	if err := k.add(t.Context(), server.URL(), now, &out); err != nil {
		t.Fatal(err)
	}
	if _, err := fleet.RevokeKey(t.Context(), conn, ""); err == nil {
		t.Error("no hash revokes a key")
	}
	if _, err := fleet.RevokeKey(t.Context(), conn, want.Hash[:8]); err != nil {
		t.Error(err)
	}
	if keys, err := fleet.ListKeys(t.Context(), conn); err != nil || len(keys) != 1 || keys[0].Hash == want.Hash {
		t.Errorf("%+v, %v", keys, err)
	}
}

// grep names a file below dir that holds text.
func grep(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), text) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAnEntryForAFileOfKeys(t *testing.T) {
	var out strings.Builder
	k := newKey{APIKey: fleet.APIKey{Tenant: "a"}, entry: true}
	if err := k.add(t.Context(), "nats://127.0.0.1:1", time.Now(), &out); err != nil {
		t.Fatal(err)
	}
	var file struct{ Keys []fleet.APIKey }
	if err := json.Unmarshal([]byte(out.String()), &file); err != nil || len(file.Keys) != 1 || file.Keys[0].Check() != nil || strings.Contains(out.String(), "wp-") {
		t.Errorf("%s, %v", out.String(), err)
	}
	for _, wrong := range []newKey{{}, {APIKey: fleet.APIKey{Tenant: "A.b"}}, {APIKey: fleet.APIKey{Tenant: "a"}, lasts: -1}} {
		if wrong.entry = true; wrong.add(t.Context(), "", time.Now(), &out) == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
}
