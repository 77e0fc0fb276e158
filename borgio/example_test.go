package borgio_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/s4-storage/s4/borgio"
)

// List what a repository holds, and print one file.
func Example() {
	ctx := context.Background()
	loc, err := borgio.ParseLocation("testdata/mode-repokey-blake2")
	if err != nil {
		log.Fatal(err)
	}
	repo, err := borgio.Open(ctx, loc, borgio.Options{
		Passphrase: func(context.Context) (string, error) { return "s4-test", nil },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer repo.Close()

	manifest, err := repo.Manifest(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, ref := range manifest.Archives {
		fmt.Println(ref.Name, ref.Time.Format("2006-01-02"))
	}
	archive, err := repo.Archive(ctx, manifest.Archives[1].ID)
	if err != nil {
		log.Fatal(err)
	}
	for item, err := range repo.Items(ctx, archive) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(item.Path, item.Size)
		if item.Path == "hello.txt.new" {
			if _, err := repo.OpenFile(item.Chunks).WriteTo(os.Stdout); err != nil {
				log.Fatal(err)
			}
		}
	}
	// Output:
	// first 2020-03-01
	// second 2020-03-02
	// hello.txt.new 8
	// changed
	// dir/text 17390
}

// Follow a repository's archives, and look only at what is new in each.
func ExampleRepository_Scan() {
	ctx := context.Background()
	repo, err := borgio.Open(ctx, borgio.Location{Path: "testdata/mode-none"}, borgio.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer repo.Close()
	manifest, err := repo.Manifest(ctx)
	if err != nil {
		log.Fatal(err)
	}
	known := map[borgio.ID]borgio.Section{}
	look := func(ref borgio.ArchiveRef) error {
		archive, err := repo.Archive(ctx, ref.ID)
		if err != nil {
			return err
		}
		scan := repo.Scan(ctx, archive, known)
		defer scan.Close()
		for scan.Next() {
			if scan.Known() {
				fmt.Println(ref.Name, "has a section that was there before")
				continue
			}
			for scan.NextItem() {
				if item := scan.Item(); item != nil {
					fmt.Println(ref.Name, "has", item.Path)
				}
			}
			section := scan.Section()
			known[section.Objects[0]] = section
		}
		return scan.Err()
	}
	second := manifest.Archives[1]
	for range 2 {
		if err := look(second); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// second has hello.txt.new
	// second has dir/text
	// second has a section that was there before
}
