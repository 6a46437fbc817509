<?php
// The scenario of a generated client (see python/scenario.py) with a client by OpenAPI Generator.
declare(strict_types=1);

use Wxgate\Api\{AppsApi, MessagesApi, OauthApi};
use Wxgate\{ApiException, Configuration};
use Wxgate\Model\{AppRegistration, DataItem, Status, SubscribeMessage};

const MESSAGES = 5;
const PAGE = 2;
const TEMPLATE = '8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k';

require 'GuzzleHttp/autoload.php';
spl_autoload_register(function (string $class): void {
    $file = __DIR__ . '/client/lib/' . str_replace('\\', '/', substr($class, strlen('Wxgate\\'))) . '.php';
    if (str_starts_with($class, 'Wxgate\\') && is_file($file)) {
        require $file;
    }
});

function message(string $user, string $value): SubscribeMessage
{
    $data = ['thing1' => new DataItem(['value' => $value])];
    return new SubscribeMessage(
        ['channel' => SubscribeMessage::CHANNEL_SUBSCRIBE, 'touser' => $user, 'template_id' => TEMPLATE, 'data' => $data]
    );
}

function check(string $what, mixed $seen, mixed $expected): void
{
    echo $what, ': ', json_encode($seen), "\n";
    if ($seen !== $expected) {
        throw new RuntimeException($what . ': ' . json_encode($seen) . ', not ' . json_encode($expected));
    }
}

$given = getopt('', ['gateway:', 'keys:']);
$key = json_decode(file_get_contents($given['keys']), true)['tenant'];
$settings = (new Configuration())->setHost($given['gateway']);
$http = new GuzzleHttp\Client();
$token = (new OauthApi($http, $settings))->issueToken('client_credentials', $key['client_id'], $key['client_secret']);
$settings->setAccessToken($token->getAccessToken());

$appid = 'wx' . bin2hex(random_bytes(8));
$app = new AppRegistration(['appid' => $appid, 'secret' => '0f1e2d3c4b5a69788796a5b4c3d2e1f0']);
check('registered', (new AppsApi($http, $settings))->registerApp($app)->getAppid(), $appid);

$messages = new MessagesApi($http, $settings);
$sent = [];
for ($number = 0; $number < MESSAGES; $number++) {
    $one = $messages->sendMessage($appid, message("o$number", '保温杯'), 'wait=20');
    check('sent', $one->getStatus(), Status::SENT);
    $sent[] = $one->getId();
}
$read = $messages->getMessage($sent[0]);
check('read', [$read->getTouser(), $read->getAttempts()[0]->getErrcode()], ['o0', 0]);

$listed = [];
$cursor = null;
do {
    $page = $messages->listMessages($appid, limit: PAGE, cursor: $cursor);
    foreach ($page->getData() as $one) {
        $listed[] = $one->getId();
    }
    $cursor = $page->getNextCursor();
} while ($cursor !== null);
check('listed', $listed, array_reverse($sent));

try {
    $messages->sendMessage($appid, message('o0', 'more than twenty characters'));
    throw new RuntimeException('a value that is too long was taken');
} catch (ApiException $refusal) {
    $problem = $refusal->getResponseObject();
    check('refused', $problem->getCode(), 'validation_failed');
    check('where', $problem->getErrors()[0]->getPointer(), '/data/thing1/value');
}
