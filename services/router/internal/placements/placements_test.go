package placements

import (
	"math/rand/v2"
	"testing"
	"time"
)

var start = time.Unix(1_000_000, 0)

func chainOf(n int, seed uint64) []uint64 {
	r := rand.New(rand.NewPCG(seed, 1))
	keys := make([]uint64, n)
	for i := range keys {
		keys[i] = r.Uint64()
	}
	return keys
}

func TestPlacedKeysCountUntilTwoSecondsAfterTheFirstByte(t *testing.T) {
	var k Keyed
	keys := chainOf(100, 1)
	p := k.Place(1, keys[10:60])
	if d := k.Depth(1, keys, 10); d != 60 {
		t.Errorf("depth %d, want 60", d)
	}
	if d := k.Depth(1, keys, 0); d != 0 {
		t.Errorf("depth %d from 0: what lies between is not known", d)
	}
	if d := k.Depth(2, keys, 10); d != 10 {
		t.Errorf("another engine has %d", d)
	}
	if d := k.Depth(1, keys, 100); d != 100 {
		t.Errorf("depth %d, want 100", d)
	}
	k.Expire(start.Add(time.Hour))
	if d := k.Depth(1, keys, 20); d != 60 {
		t.Errorf("gone without a first byte: depth %d", d)
	}
	k.FirstByte(p, start)
	k.Expire(start.Add(Linger - 1))
	if d := k.Depth(1, keys, 10); d != 60 {
		t.Errorf("depth %d while it lingers", d)
	}
	k.Expire(start.Add(Linger))
	if d := k.Depth(1, keys, 10); d != 10 || k.Size() != 0 || k.keys != 0 {
		t.Errorf("depth %d, %d keys left", d, k.Size())
	}
}

// TestKeyedAgainstModel drives random placements and compares with a list of them.
func TestKeyedAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	var k Keyed
	type live struct {
		p      *Placement
		to     int
		engine uint32
		until  time.Time
	}
	keys, now := chainOf(200, 2), start
	var model []live
	for range 5000 {
		now = now.Add(time.Duration(r.IntN(300)) * time.Millisecond)
		k.Expire(now)
		kept := model[:0]
		for _, l := range model {
			if l.until.IsZero() || now.Before(l.until) {
				kept = append(kept, l)
			}
		}
		model = kept
		switch r.IntN(4) {
		case 0, 1:
			to := 1 + r.IntN(200)
			l := live{to: to, engine: uint32(r.IntN(3))}
			l.p = k.Place(l.engine, keys[:to])
			model = append(model, l)
		case 2:
			if i := r.IntN(len(model) + 1); i < len(model) && model[i].until.IsZero() {
				k.FirstByte(model[i].p, now)
				model[i].until = now.Add(Linger)
			}
		case 3:
			if i := r.IntN(len(model) + 1); i < len(model) && model[i].until.IsZero() {
				k.Drop(model[i].p)
				model = append(model[:i], model[i+1:]...)
			}
		}
		for engine := range uint32(3) {
			want := 0
			for _, l := range model {
				if l.engine == engine {
					want = max(want, l.to)
				}
			}
			if got := k.Depth(engine, keys, 0); got != want {
				t.Fatalf("engine %d: depth %d, want %d", engine, got, want)
			}
		}
	}
}

func TestKeyedIsBounded(t *testing.T) {
	var k Keyed
	a := k.Place(1, chainOf(maxKeys, 3))
	b := k.Place(1, chainOf(10, 4))
	if k.Size() != maxKeys {
		t.Errorf("%d keys", k.Size())
	}
	k.Drop(b)
	k.FirstByte(b, start)
	k.Drop(a)
	k.Drop(a)
	if k.Size() != 0 || k.keys != 0 || len(k.linger) != 0 {
		t.Errorf("%d keys left", k.Size())
	}
}

func TestPiecesFollowSharedHeads(t *testing.T) {
	text := make([]byte, 100*PieceBytes+17)
	r := rand.New(rand.NewPCG(6, 6))
	for i := range text {
		text[i] = byte(r.Uint32())
	}
	scope := Scope([]byte("pool"), []byte("lora"))
	chain := Chain(nil, scope, text)
	if len(chain) != 100 {
		t.Fatalf("%d pieces", len(chain))
	}
	var p Pieces
	p.Sent(1, chain, start)
	p.Sent(2, chain[:37], start)
	other := append([]byte(nil), text...)
	other[50*PieceBytes] ^= 1
	for _, c := range []struct {
		engine uint32
		chain  []uint64
		want   int
	}{
		{1, chain, 100}, {2, chain, 37}, {3, chain, 0}, {1, Chain(nil, scope, other), 50},
		{1, Chain(nil, scope+1, text), 0}, {1, nil, 0},
	} {
		if d := p.Depth(c.engine, c.chain, start.Add(time.Minute)); d != c.want {
			t.Errorf("engine %d: depth %d, want %d", c.engine, d, c.want)
		}
	}
	if d := p.Depth(1, chain, start.Add(maxAge)); d != 0 {
		t.Errorf("depth %d after %v", d, maxAge)
	}
	if Scope([]byte("a"), []byte("b")) == Scope([]byte("ab"), nil) {
		t.Error("scopes of other parts are equal")
	}
}

func TestPiecesForgetTheOldestHalf(t *testing.T) {
	var p Pieces
	first, last := chainOf(100, 7), chainOf(100, 8)
	p.Sent(1, first, start)
	p.Sent(1, chainOf(halfPieces, 9), start)
	p.Sent(1, last, start)
	if p.Depth(1, first, start) != 100 || p.Depth(1, last, start) != 100 {
		t.Error("forgotten too early")
	}
	p.Sent(1, chainOf(halfPieces, 10), start)
	p.Sent(1, last, start)
	if p.Depth(1, first, start) != 0 || p.Depth(1, last, start) != 100 {
		t.Error("the oldest is kept or the newest forgotten")
	}
	if p.Size() > 2*halfPieces+1000 {
		t.Errorf("%d pieces", p.Size())
	}
}
