package bodies

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestBodyReadersOutliveTheRequest reads a body through its transport's reader after the handler let go of it, while
// other requests use the pool.
func TestBodyReadersOutliveTheRequest(t *testing.T) {
	var pool Pool
	read := func(text string) *Body {
		b, e := pool.Read(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text)))
		if e != nil {
			t.Fatal(e)
		}
		return b
	}
	for i := range 100 {
		size := []int{100, 32 << 10, 96 << 10}[i%3]
		text := strings.Repeat(fmt.Sprint(i%10), size)
		first := read(text)
		r := first.Reader()
		first.Release()
		read(strings.Repeat("x", size)).Release()
		if got, err := io.ReadAll(r); err != nil || string(got) != text {
			t.Fatalf("round %d: %d bytes %v", i, len(got), err)
		}
		r.Close()
		r.Close()
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Fatal("read after close")
		}
	}
}
