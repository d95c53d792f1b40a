// Package headers says which headers pass between clients and engines, and what a request is called.
package headers

import (
	"net/http"
	"strings"

	"github.com/google/uuid"
)

// RequestID is the header with a request's name: of the client's request and of its answer, and of all that engines get
// for it.
const RequestID = "X-Request-Id"

const longestID = 128

// NameOf keeps the client's id where it is one that may stand in logs and headers, and else makes one in order of
// time (UUIDv7).
func NameOf(h http.Header) string {
	id := h.Get(RequestID)
	if id != "" && len(id) <= longestID && strings.IndexFunc(id, strange) < 0 {
		return id
	}
	return uuid.Must(uuid.NewV7()).String() // fails only without a random source
}

func strange(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.:/+=@", r))
}

// hop says that a header is between two neighbours only (RFC 9110, 7.6.1).
func hop(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Proxy-Authenticate", "Proxy-Authorization":
		return true
	}
	return false
}

// ours says that a client's header does not reach an engine: the tenant's key, what would steer routing or priority,
// and encodings that we could not read on the way back.
func ours(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Cookie", "Accept-Encoding", "Content-Length", "Host", "Expect", "Prefer",
		"Priority", "X-Priority", "X-Request-Priority", "Epp-Profile", RequestID:
		return true
	}
	for _, prefix := range []string{
		"X-Warmpath-", "X-Llm-D-", "X-Gateway-", "X-Data-Parallel-", "X-Prefiller-", "X-Encoder-", "X-Kv-Cache-", "X-Slo-",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// Forward copies the headers of a request that an engine may see.
func Forward(in http.Header) http.Header {
	out := make(http.Header, len(in)+3)
	listed := in.Values("Connection")
	for name, values := range in {
		if !hop(name) && !ours(name) && !named(listed, name) {
			out[name] = values
		}
	}
	return out
}

// Answer copies the headers of an engine's response that the client may see.
func Answer(out, in http.Header) {
	listed := in.Values("Connection")
	for name, values := range in {
		if !hop(name) && name != RequestID && !named(listed, name) {
			out[name] = values
		}
	}
}

func named(lists []string, name string) bool {
	for _, list := range lists {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(one), name) {
				return true
			}
		}
	}
	return false
}
