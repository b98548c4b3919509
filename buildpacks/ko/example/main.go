// Hello answers every request with its version.
package main

import (
	"fmt"
	"log"
	"net/http"
)

var version = "unknown"

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello from", version)
	})
	log.Fatal(http.ListenAndServe(":8080", nil))
}
