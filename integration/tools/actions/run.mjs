// Does one thing with the client that actions/cache has, and says what came of
// it. What to do is JSON on standard input: save, restore or look.
import * as cache from '@actions/cache'

let input = ''
for await (const part of process.stdin) input += part
const { operation, paths, key, restoreKeys, options } = JSON.parse(input)
let result
try {
  result = operation === 'save'
    ? await cache.saveCache(paths, key, options)
    : await cache.restoreCache(paths, key, restoreKeys, { lookupOnly: operation === 'look', ...options })
} catch (error) {
  result = { error: `${error.name}: ${error.message}` }
}
process.stdout.write(`\nRESULT ${JSON.stringify(result ?? null)}\n`)
