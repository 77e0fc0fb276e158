// Command box is the only program of the image that tests run: an image from
// scratch has no shell. It does one thing and ends; wait goes on until it is
// told to stop.
//
//	box write FILE TEXT   replaces the file's content, durably
//	box append FILE TEXT
//	box read FILE         prints its content
//	box list DIR          prints the names in it, one a line
//	box fill FILE         writes into it, durably, until that fails
//	box remove FILE
//	box wait              until SIGTERM
//	box serve FILE        writes a running number into it, until SIGTERM
package main

import (
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("box: ", err)
	}
}

func run(args []string) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	if len(args) == 0 {
		args = []string{""}
	}
	verb, args := args[0], args[1:]
	switch {
	case verb == "wait" && len(args) == 0:
		<-stop
		return nil
	case verb == "serve" && len(args) == 1:
		for n := 0; ; n++ {
			if err := write(args[0], strconv.Itoa(n), os.O_TRUNC); err != nil {
				return err
			}
			select {
			case <-stop:
				return nil
			case <-time.After(20 * time.Millisecond):
			}
		}
	case verb == "write" && len(args) == 2:
		return write(args[0], args[1], os.O_TRUNC)
	case verb == "append" && len(args) == 2:
		return write(args[0], args[1], os.O_APPEND)
	case verb == "fill" && len(args) == 1:
		return fill(args[0])
	case verb == "remove" && len(args) == 1:
		return os.Remove(args[0])
	case verb == "read" && len(args) == 1:
		data, err := os.ReadFile(args[0])
		fmt.Print(string(data))
		return err
	case verb == "list" && len(args) == 1:
		entries, err := os.ReadDir(args[0])
		for _, e := range entries {
			fmt.Println(e.Name())
		}
		return err
	}
	return fmt.Errorf("no such use: %s %q", verb, args)
}

// fill returns the error that ends it.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	for random := rand.NewChaCha8([32]byte{}); ; { // which does not compress
		_, _ = random.Read(data)
		if _, err := f.Write(data); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
}

func write(path, text string, flags int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flags, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return f.Sync()
}
