/* Malformed sound files (group 46): each is refused, with file and reason. */
#define _DEFAULT_SOURCE
#include <math.h>
#include <sndfile.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "src/media/audio.h"
#include "tests/media/make.h"
#include "tests/test.h"

/* Decoding these bytes under this name fails; the message begins with the name and holds the reason. Frees the bytes. */
static void refused(forge *f, const char *name, const char *reason) {
  arb_audio audio = {0};
  arb_fail_clear();
  unsigned char *bytes = malloc(f->used > 0 ? f->used : 1); /* exact, so that a sanitizer sees a read behind the end */
  assert_non_null(bytes);
  if (f->used > 0) memcpy(bytes, f->bytes, f->used);
  const arb_status st = arb_audio_decode(bytes, f->used, name, ARB_AUDIO_MAX_FRAMES, &audio);
  if (st != ARB_ERR_DATA) fail_msg("%s (%s): %s, expected a refusal", name, reason, arb_status_name(st));
  assert_null(audio.samples);
  if (strncmp(arb_fail_message(), name, strlen(name)) != 0) fail_msg("'%s' does not name %s", arb_fail_message(), name);
  if (strstr(arb_fail_message(), reason) == NULL) fail_msg("message '%s' lacks '%s'", arb_fail_message(), reason);
  arb_fail_clear();
  free(bytes);
  free(f->bytes);
  *f = (forge){0};
}

static void other_files(void **test) {
  static const struct {
    const char *bytes;
    size_t n;
    const char *name, *reason;
  } cases[] = {{"", 0, "x.wav", "neither WAV nor FLAC: begins with 00 00 00 00"},
               {"RIFF", 4, "x.wav", "neither WAV nor FLAC: begins with 52 49 46 46"},
               {"RIFF\4\0\0\0AVI ", 12, "x.wav", "neither WAV nor FLAC"},
               {"RIFX\4\0\0\0WAVE", 12, "x.wav", "neither WAV nor FLAC"},
               {"RF64\4\0\0\0WAVE", 12, "x.wav", "neither WAV nor FLAC"},
               {"OggS\0\2\0\0", 8, "x.ogg", "neither WAV nor FLAC"},
               {"ID3\4\0\0\0\0", 8, "x.mp3", "neither WAV nor FLAC"},
               {"RIFF\4\0\0\0WAVE", 12, "x.flac", "is a WAV file, by its name FLAC"},
               {"fLaC\0\0\0\x22", 8, "x.wav", "is a FLAC file, by its name WAV"},
               {"RIFF\4\0\0\0WAVE", 12, "x.wav", "WAV: no data chunk"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    forge_bytes(&f, cases[i].bytes, cases[i].n);
    refused(&f, cases[i].name, cases[i].reason);
  }
  (void)test;
}

static void no_regular_file(void **test) {
  arb_audio audio;
  const char *path = in_folder(*test, "pipe.wav");
  assert_int_equal(mkfifo(path, 0600), 0);
  arb_assert_fails(arb_audio_read(path, &audio), ARB_ERR_DATA, "pipe.wav: is a named pipe");
  arb_assert_fails(arb_audio_read(*test, &audio), ARB_ERR_DATA, "is a folder");
  arb_assert_fails(arb_audio_read_speech("/dev/zero", &audio), ARB_ERR_DATA, "/dev/zero: is a character device");
  arb_assert_fails(arb_audio_read(in_folder(*test, "none.wav"), &audio), ARB_ERR_DATA, "none.wav: cannot be opened");
  path = in_folder(*test, "empty.wav");
  forge f = {0};
  forge_write(&f, path);
  arb_assert_fails(arb_audio_read(path, &audio), ARB_ERR_DATA, "empty.wav: is empty");
  assert_int_equal(truncate(path, (off_t)ARB_AUDIO_MAX_FILE + 1), 0);
  arb_assert_fails(arb_audio_read(path, &audio), ARB_ERR_DATA, "empty.wav: 268435457 bytes, limit 268435456");
  assert_null(audio.samples);
}

/* ---- WAV --------------------------------------------------------------------------------------------------------------- */

static void wav_formats(void **test) {
  static const struct {
    wav_spec spec;
    const char *reason;
  } cases[] = {
      {{1, 0, 16000, 2, 16, 8, 0, 0}, "WAV: 0 channels, expected 1 to 8"},
      {{1, 65535, 16000, 2, 16, 8, 0, 0}, "WAV: 65535 channels"},
      {{1, 9, 16000, 18, 16, 18, 0, 0}, "WAV: 9 channels"},
      {{1, 1, 0, 2, 16, 8, 0, 0}, "WAV: a rate of 0 Hz, expected 4000 to 384000"},
      {{1, 1, UINT32_MAX, 2, 16, 8, 0, 0}, "WAV: a rate of 4294967295 Hz"},
      {{1, 1, 1, 2, 16, 8, 0, 0}, "WAV: a rate of 1 Hz"},
      {{1, 1, 16000, 2, 0, 8, 0, 0}, "WAV: 0 bits a sample, expected 8, 16, 24 or 32"},
      {{1, 1, 16000, 1, 1, 8, 0, 0}, "WAV: 1 bits a sample"},
      {{1, 1, 16000, 1, 7, 8, 0, 0}, "WAV: 7 bits a sample"},
      {{1, 1, 16000, 2, 12, 8, 0, 0}, "WAV: 12 bits a sample"},
      {{1, 1, 16000, 8, 64, 8, 0, 0}, "WAV: 64 bits a sample, expected 8, 16, 24 or 32"},
      {{3, 1, 16000, 2, 16, 8, 0, 0}, "WAV: 16 bits a sample, expected 32 or 64"},
      {{1, 1, 16000, 0, 16, 8, 0, 0}, "WAV: blocks of 0 bytes, but 1 channels of 16 bits need 2"},
      {{1, 1, 16000, 4, 16, 8, 0, 0}, "WAV: blocks of 4 bytes, but 1 channels of 16 bits need 2"},
      {{1, 2, 16000, 2, 16, 8, 0, 0}, "WAV: blocks of 2 bytes, but 2 channels of 16 bits need 4"},
      {{2, 1, 16000, 256, 4, 256, 0, 0},
       "WAV: encoding 2, expected PCM (1) or float (3)"}, /* ADPCM; samplesPerBlock never matters */
      {{17, 1, 16000, 256, 4, 256, 0, 0}, "WAV: encoding 17"},
      {{6, 1, 8000, 1, 8, 8, 0, 0}, "WAV: encoding 6"},
      {{0, 1, 8000, 1, 8, 8, 0, 0}, "WAV: encoding 0"},
      {{0xfffe, 1, 16000, 2, 16, 8, 0, 0}, "WAV: a fmt chunk of 16 bytes, expected 40 for its extensible format"},
      {{1, 1, 16000, 2, 16, 0, 0, 0}, "WAV: no samples: a data chunk of 0 bytes"},
      {{1, 2, 16000, 4, 16, 6, 0, 0}, "WAV: 6 bytes of data are not a multiple of the block of 4"},
      {{1, 1, 16000, 2, 16, 8, UINT32_MAX, 0}, "WAV: the data chunk at byte 36 has 4294967295 bytes, 8 are left"},
      {{1, 1, 16000, 2, 16, 8, 10, 0}, "WAV: the data chunk at byte 36 has 10 bytes, 8 are left"},
      {{1, 1, 16000, 2, 16, 8, 4, 0}, "WAV: 4 bytes where a chunk should begin, at byte 48"},
      {{1, 1, 16000, 2, 16, 8, 0, 1}, "WAV: ends early: 52 bytes, its header says 53"},
      {{1, 1, 16000, 2, 16, 8, 0, 1000000000}, "WAV: ends early: 52 bytes, its header says 1000000052"},
      {{1, 1, 16000, 2, 16, 8, 0, -2}, "WAV: 2 bytes after the end of the RIFF chunk"},
      {{1, 1, 16000, 2, 16, 8, 0, -44}, "WAV: its size was never filled in"},
      {{1, 1, 16000, 2, 16, 8, 0, (int64_t)UINT32_MAX - 44}, "WAV: its size was never filled in: a streamed file"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    wav_file(&f, &cases[i].spec, NULL);
    refused(&f, "x.wav", cases[i].reason);
  }
  (void)test;
}

static const unsigned char mono[16] = {1, 0, 1, 0, 0x80, 0x3e, 0, 0, 0, 0x7d, 0, 0, 2, 0, 16, 0};

static void wav_chunks(void **test) {
  forge f = {0};
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "data", NULL, 8);
  wav_chunk(&f, "fmt ", mono, 16);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: no fmt chunk before the data");
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "fmt ", mono, 16);
  wav_chunk(&f, "fmt ", mono, 16);
  wav_chunk(&f, "data", NULL, 8);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: two fmt chunks");
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "fmt ", mono, 16);
  wav_chunk(&f, "data", NULL, 8);
  wav_chunk(&f, "data", NULL, 8);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: two data chunks");
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "fmt ", mono, 14);
  wav_chunk(&f, "data", NULL, 8);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: a fmt chunk of 14 bytes, expected 16 or more");
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "fmt ", mono, 16);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: no data chunk");
  /* An odd chunk without its pad byte: in the middle the next chunk is not found, at the end the byte is missing. */
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "odd ", "abc", 3);
  f.used--;
  wav_chunk(&f, "fmt ", mono, 16);
  wav_chunk(&f, "data", NULL, 8);
  wav_close(&f);
  refused(&f, "x.wav", "WAV: ");
  forge_text(&f, "RIFF....WAVE");
  wav_chunk(&f, "fmt ", mono, 16);
  wav_chunk(&f, "data", NULL, 8);
  wav_chunk(&f, "odd ", "abc", 3);
  f.used--;
  wav_close(&f);
  refused(&f, "x.wav", "WAV: an odd chunk without its pad byte at the end");
  /* Rests that are no chunk. */
  for (size_t rest = 1; rest < 8; rest++) {
    forge_text(&f, "RIFF....WAVE");
    wav_chunk(&f, "fmt ", mono, 16);
    wav_chunk(&f, "data", NULL, 8);
    forge_zeros(&f, rest);
    wav_close(&f);
    refused(&f, "x.wav", "where a chunk should begin");
  }
  (void)test;
}

/* LIST in LIST, 100,000 deep: no chunk is entered, so nothing recurses; without data it is refused, with data it is read. */
static void wav_nested_lists(void **test) {
  enum { DEEP = 100000 };
  for (int with_data = 0; with_data < 2; with_data++) {
    forge f = {0};
    forge_text(&f, "RIFF....WAVE");
    if (with_data) wav_chunk(&f, "fmt ", mono, 16);
    if (with_data) wav_chunk(&f, "data", NULL, 8);
    for (uint32_t i = 0; i < DEEP; i++) {
      forge_text(&f, "LIST");
      forge_u32(&f, 12 * (DEEP - i) - 8);
      forge_text(&f, "INFO");
    }
    wav_close(&f);
    const clock_t before = clock();
    if (with_data) {
      arb_audio audio;
      arb_assert_ok(arb_audio_decode(f.bytes, f.used, "x.wav", 4, &audio));
      arb_audio_free(&audio);
      free(f.bytes);
    } else {
      refused(&f, "x.wav", "WAV: no data chunk");
    }
    assert_true((double)(clock() - before) / CLOCKS_PER_SEC < 1);
  }
  (void)test;
}

static void not_finite(void **test) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < 3; i++) {
    float samples[4] = {0};
    forge f = {0};
    samples[2] = bad[i];
    wav_file(&f, &(wav_spec){3, 1, 16000, 4, 32, 16, 0, 0}, samples);
    refused(&f, "x.wav", "WAV: sample 2 is not finite");
    const double wide[2] = {1, (double)bad[i]}, large[2] = {1e300, 0}; /* finite, but not as float32 */
    wav_file(&f, &(wav_spec){3, 1, 16000, 8, 64, 16, 0, 0}, wide);
    refused(&f, "x.wav", "WAV: sample 1 is not finite");
    wav_file(&f, &(wav_spec){3, 1, 16000, 8, 64, 16, 0, 0}, large);
    refused(&f, "x.wav", "WAV: sample 0 is not finite");
  }
  (void)test;
}

static void too_long(void **test) {
  arb_audio audio;
  forge f = {0};
  wav_file(&f, &(wav_spec){1, 1, 16000, 2, 16, 10, 0, 0}, NULL);
  arb_assert_fails(arb_audio_decode(f.bytes, f.used, "x.wav", 4, &audio), ARB_ERR_DATA,
                   "x.wav: WAV: 5 samples a channel, limit 4");
  free(f.bytes);
  (void)test;
}

static void wav_truncated(void **test) {
  forge whole = {0};
  wav_file(&whole, &(wav_spec){1, 1, 16000, 2, 16, 8, 0, 0}, NULL);
  for (size_t cut = 12; cut < whole.used; cut++) {
    forge f = {0};
    forge_bytes(&f, whole.bytes, cut);
    refused(&f, "x.wav", "WAV: ends early");
    forge_bytes(&f, whole.bytes, cut); /* and with a header that agrees */
    wav_close(&f);
    refused(&f, "x.wav", "WAV: ");
  }
  free(whole.bytes);
  (void)test;
}

/* ---- FLAC -------------------------------------------------------------------------------------------------------------- */

static void make_flac(forge *f, const char *folder, int frames) {
  const char *path = in_folder(folder, "made.flac");
  SF_INFO info = {.samplerate = 16000, .channels = 1, .format = SF_FORMAT_FLAC | SF_FORMAT_PCM_16};
  SNDFILE *out = sf_open(path, SFM_WRITE, &info);
  assert_non_null(out);
  for (int i = 0; i < frames; i++) {
    const short sample = (short)(i * 7919);
    assert_int_equal(sf_write_short(out, &sample, 1), 1);
  }
  assert_int_equal(sf_close(out), 0);
  unsigned char bytes[4096];
  FILE *in = fopen(path, "rb");
  assert_non_null(in);
  for (size_t n; (n = fread(bytes, 1, sizeof bytes, in)) > 0;) forge_bytes(f, bytes, n);
  fclose(in);
}

static void flac_truncated(void **test) {
  forge whole = {0};
  make_flac(&whole, *test, 600);
  for (size_t cut = 4; cut < whole.used; cut++) {
    forge f = {0};
    forge_bytes(&f, whole.bytes, cut);
    refused(&f, "x.flac", "FLAC: ");
  }
  free(whole.bytes);
}

/* STREAMINFO follows the magic and 4 bytes of block header: rate 20 bits, channels 3, bits 5, samples 36, from its byte 10 on.
 */
static void flac_headers(void **test) {
  static const struct {
    int at;
    unsigned char bytes[8];
    size_t n;
    const char *reason;
  } cases[] = {{18, {0, 0, 0x00, 0xf0}, 4, "FLAC: "},                            /* rate 0 */
               {18, {0xff, 0xff, 0xf0, 0xf0}, 4, "FLAC: "},                      /* rate 1048575 */
               {21, {0xf0, 0, 0, 0, 0}, 5, "FLAC: no samples, or their number"}, /* unknown length */
               {21, {0xff, 0xff, 0xff, 0xff, 0xff}, 5, "FLAC: 68719476735 samples a channel, limit 67108864"},
               {21, {0xf0, 0, 0, 0x10, 0}, 5, "FLAC: ends early: 600 samples of 4096"},
               {4, {1}, 1, "FLAC: "},                /* padding in place of STREAMINFO */
               {4, {0x7f}, 1, "FLAC: "},             /* the forbidden type of block */
               {5, {0xff, 0xff, 0xff}, 3, "FLAC: "}, /* a block of 16 MB */
               {42, {0x84, 0xff, 0xff, 0xff}, 4, "FLAC: "}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    forge f = {0};
    make_flac(&f, *test, 600);
    memcpy(f.bytes + cases[i].at, cases[i].bytes, cases[i].n);
    refused(&f, "x.flac", cases[i].reason);
  }
}

/* A frame of 4096 samples is sound, the next is not: the message says where. */
static void flac_corrupt_frame(void **test) {
  forge f = {0};
  make_flac(&f, *test, 6000);
  f.bytes[f.used - 20] ^= 0x10;
  refused(&f, "x.flac", "FLAC: corrupt near sample 4096: ");
}

/* Bytes of the frames, changed: the checksums of FLAC find it. And anything anywhere gives an answer. */
static void flipped_bytes(void **test) {
  forge whole = {0};
  make_flac(&whole, *test, 600);
  int accepted = 0, tried = 0;
  for (size_t at = 4; at < whole.used; at += 3) {
    arb_audio audio;
    whole.bytes[at] ^= 0x10;
    arb_fail_clear();
    const arb_status st = arb_audio_decode(whole.bytes, whole.used, "x", ARB_AUDIO_MAX_FRAMES, &audio);
    assert_true(st == ARB_OK || (st == ARB_ERR_DATA && strncmp(arb_fail_message(), "x: ", 3) == 0));
    if (at > whole.used - 800) tried++, accepted += st == ARB_OK;
    arb_audio_free(&audio);
    whole.bytes[at] ^= 0x10;
  }
  assert_true(tried > 200);
  if (accepted > 0) fail_msg("%d of %d changed frames were accepted", accepted, tried);
  free(whole.bytes);
  forge wav = {0};
  wav_file(&wav, &(wav_spec){1, 1, 16000, 2, 16, 8, 0, 0}, NULL);
  for (size_t at = 0; at < 44; at++) {
    for (int bit = 0; bit < 8; bit++) {
      arb_audio audio;
      wav.bytes[at] ^= (unsigned char)(1 << bit);
      arb_fail_clear();
      const arb_status st = arb_audio_decode(wav.bytes, wav.used, "x", ARB_AUDIO_MAX_FRAMES, &audio);
      assert_true(st == ARB_OK || (st == ARB_ERR_DATA && strncmp(arb_fail_message(), "x: ", 3) == 0));
      arb_audio_free(&audio);
      wav.bytes[at] ^= (unsigned char)(1 << bit);
    }
  }
  free(wav.bytes);
  arb_fail_clear();
}

#define FOLDER(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(other_files), FOLDER(no_regular_file),         cmocka_unit_test(wav_formats),
      cmocka_unit_test(wav_chunks),  cmocka_unit_test(not_finite),    cmocka_unit_test(wav_nested_lists),
      cmocka_unit_test(too_long),    cmocka_unit_test(wav_truncated), FOLDER(flac_truncated),
      FOLDER(flac_headers),          FOLDER(flac_corrupt_frame),      FOLDER(flipped_bytes)};
  return cmocka_run_group_tests_name("hostile_audio", tests, NULL, NULL);
}
