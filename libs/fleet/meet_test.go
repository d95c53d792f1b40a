package fleet

import (
	"net"
	"strings"
	"testing"

	"github.com/warmpath/warmpath/libs/blockkey"
)

func TestMeetReadsTheSeedOfTheInstallation(t *testing.T) {
	c := connect(t)
	var first, second blockkey.Seed
	for _, seed := range []*blockkey.Seed{&first, &second, nil} {
		if _, err := Meet(t.Context(), c, nil, seed); err != nil {
			t.Fatal(err)
		}
	}
	if first != second || first == (blockkey.Seed{}) {
		t.Fatal("two processes read different seeds, or none")
	}
}

func TestInstancesDifferAndAreSafe(t *testing.T) {
	a, b := NewInstance(), NewInstance()
	if a == b || strings.ContainsAny(a, ".*> ") {
		t.Fatalf("instances %q and %q", a, b)
	}
}

func TestReachableReplacesOnlyTheAddressOfAllInterfaces(t *testing.T) {
	c := connect(t)
	for listen, want := range map[string]string{"10.1.2.3:70": "10.1.2.3:70", "0.0.0.0:70": "127.0.0.1:70", "[::]:70": "127.0.0.1:70"} {
		address, err := net.ResolveTCPAddr("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		if got := Reachable(address, c); got != want {
			t.Errorf("%s is reached at %s, want %s", listen, got, want)
		}
	}
}
