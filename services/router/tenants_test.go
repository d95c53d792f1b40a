package router

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/warmpath/warmpath/libs/bus"
	"github.com/warmpath/warmpath/libs/bus/embedded"
	"github.com/warmpath/warmpath/libs/fleet"
)

// A key in NATS closes a running router, and opens it to who has it; when it is revoked it opens to nobody.
func TestKeysInNATSAreFollowed(t *testing.T) {
	r := start(t)
	status := func(key string) int {
		req, _ := http.NewRequest(http.MethodGet, r.url+"/v1/models", nil)
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(""); got != 200 {
		t.Fatalf("without any key: %d", got)
	}
	key := fleet.NewAPIKey()
	if err := fleet.AddKey(t.Context(), r.conn, &fleet.APIKey{Hash: fleet.KeyHash(key), Tenant: "a"}); err != nil {
		t.Fatal(err)
	}
	within(t, "closed", func() bool { return status("") == 401 })
	if a, b := status(key), status(key+"x"); a != 200 || b != 401 {
		t.Errorf("%d with the key, %d with another", a, b)
	}
	if _, err := fleet.RevokeKey(t.Context(), r.conn, fleet.KeyHash(key)[:12]); err != nil {
		t.Fatal(err)
	}
	within(t, "revoked", func() bool { return status(key) == 401 })
	if got := status(""); got != 401 {
		t.Errorf("after the last key: %d", got)
	}
	r.stop()
	<-r.ended
}

func TestAnOpenAddressIsRefused(t *testing.T) {
	server, err := embedded.Start(embedded.Options{Dir: t.TempDir(), MaxStore: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	open := &net.TCPAddr{IP: net.IPv4zero, Port: 8080}
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	empty := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(empty, []byte(`{"keys":[]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := bus.Connect(t.Context(), server.URL(), bus.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if err := conn.Ensure(t.Context(), bus.Sizes{}); err != nil {
		t.Fatal(err)
	}
	try := func(cfg Config, at net.Addr) (*rig, error) {
		g := newRig(t, cfg)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return g, g.rt.followTenants(ctx, ctx, conn, at)
	}
	if _, err := try(Config{}, open); !errors.Is(err, ErrOpen) {
		t.Errorf("an open address without keys: %v", err)
	}
	if _, err := try(Config{}, local); err != nil {
		t.Errorf("loopback: %v", err)
	}
	if g, err := try(Config{NoAuth: true, Hold: time.Millisecond}, open); err != nil {
		t.Errorf("as the operator says: %v", err)
	} else if resp, _ := g.ask("x", "any-key-that-a-library-insists-on"); resp.StatusCode == 401 {
		t.Error("a key is needed where the operator said that none is")
	}
	if g, err := try(Config{Keys: empty}, open); err != nil {
		t.Errorf("a file without keys yet: %v", err)
	} else if resp, _ := g.ask("x", ""); resp.StatusCode != 401 {
		t.Errorf("a file without keys lets everybody in: %d", resp.StatusCode)
	}
	if _, err := try(Config{Keys: empty + "x"}, local); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := fleet.AddKey(t.Context(), conn, &fleet.APIKey{Hash: fleet.KeyHash("k"), Tenant: "a"}); err != nil {
		t.Fatal(err)
	}
	if g, err := try(Config{}, open); err != nil {
		t.Errorf("with a key in NATS: %v", err)
	} else if resp, _ := g.ask("x", ""); resp.StatusCode != 401 {
		t.Errorf("without the key: %d", resp.StatusCode)
	}
}
